"""What a run's folder tells: its state, its curve, and what in it may be deleted. Imports no torch and no ray."""
