"""The live record of a run: its table, its curves, its Visdom page."""
