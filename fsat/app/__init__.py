"""A web page to tag sounds: files or a recording in, labels, pictures and a table out."""
