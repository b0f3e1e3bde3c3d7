"""Work in parallel: ``map(function, items)`` of threads, processes or a Ray cluster, with the same results as `map`."""
