"""Pruning to a latency: measure it (meter, table), predict it, choose and try cuts (search)."""
