"""Files: read with errors that name them, written whole or not at all, remembered between runs."""
