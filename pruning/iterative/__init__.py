"""Pruning while training: what is cut, when, and what a network has lost so far."""
