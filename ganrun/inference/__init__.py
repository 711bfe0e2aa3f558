"""Samples, scores and exports of a checkpoint."""
