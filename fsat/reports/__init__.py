"""Tables and figures, written into a folder."""
