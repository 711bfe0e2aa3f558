"""Metrics, events and profiles of a run, and the sidecar that shows them."""
