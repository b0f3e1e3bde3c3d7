"""Scores and blends of predictions, with numpy alone."""
