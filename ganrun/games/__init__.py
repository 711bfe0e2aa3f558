"""The games: players and their losses."""
