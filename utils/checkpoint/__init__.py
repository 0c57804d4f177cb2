"""A network on disk: saved, opened, started from, and fetched where others publish it."""
