"""Measurements of `ganrun bench`, each beside what a user would use instead."""
