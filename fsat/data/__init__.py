"""Tables of clips, their audio, features and folds, and generated sounds."""
