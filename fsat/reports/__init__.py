"""Tables, figures and HTML pages, written into a folder."""
