"""A run's page: what was asked, and what came of it, as one file for a browser."""
