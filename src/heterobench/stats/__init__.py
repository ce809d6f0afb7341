"""Intervals over seeds, paired differences, and who shares the first place."""
