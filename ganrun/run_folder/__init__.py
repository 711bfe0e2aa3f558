"""The folder of a run: layout, lease, status, curve, report, clean-up. Imports no torch and no ray."""
