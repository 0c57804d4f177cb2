"""Several processes: those that train together, and those that load photos."""
