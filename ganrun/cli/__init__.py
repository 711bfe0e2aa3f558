"""Shared by all commands: entry point, preflight checks, progress and signals."""
