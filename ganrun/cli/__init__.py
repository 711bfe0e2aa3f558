"""What commands share: entry point, preflight, progress, signals."""
