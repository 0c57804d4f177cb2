"""Boxes on pictures, curves and metrics as figures."""
