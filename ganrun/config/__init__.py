"""A run's config: its schema, reading and checking it, the names it may use. Imports no torch and no ray."""
