"""What people who work on the project run, from its folder: `python -m tools.NAME`."""
