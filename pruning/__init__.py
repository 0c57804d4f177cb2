"""Making a trained network smaller: what is important, what goes, and the cut."""
