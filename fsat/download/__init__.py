"""Published datasets, downloaded into folders that fsat reads: fetched, checked, unpacked, put in place."""
