"""Published datasets and backbones, made into folders that fsat reads: fetched, checked, unpacked, put in place."""
