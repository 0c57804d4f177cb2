"""Settings: from flags and files, their ranges, and what `--help` tells of them."""
