"""Work done side by side: by threads, by processes of this machine, or on a Ray cluster."""
