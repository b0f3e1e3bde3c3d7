"""The entry points as plain functions; the command line only turns options into their arguments."""
