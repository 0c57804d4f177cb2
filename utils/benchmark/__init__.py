"""How fast, how large and how good networks are, side by side."""
