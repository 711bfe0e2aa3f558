"""Sidecar: a process that receives the pushes of runs and serves them to Prometheus and browsers."""
