"""Several runs against each other: what was asked, and what came of it."""
