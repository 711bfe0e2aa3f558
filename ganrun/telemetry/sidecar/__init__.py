"""The process that shows runs: it takes what their drivers push and answers Prometheus and browsers."""
