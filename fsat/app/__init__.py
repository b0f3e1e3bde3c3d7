"""The page: sounds in, through a browser; their tags, pictures and a table out."""
