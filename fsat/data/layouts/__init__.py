"""Layouts of a dataset: what a folder says of its clips, read to the same rows whatever its shape.

`recognise` finds the layout of a folder. The other modules have one reader for each layout, a function of the folder
and the options that returns `fsat.data.layouts.rows.Rows`.
"""
