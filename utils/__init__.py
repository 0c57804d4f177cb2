"""Rooms of the house, each with a question of its own; docs/architecture.md has the picture."""
