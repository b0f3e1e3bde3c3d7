"""Scores and blends of predictions, with numpy alone; scipy fits the weights of a blend."""
