"""Scores of generated images: features, their statistics, and the metrics computed from them."""
