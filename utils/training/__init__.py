"""Training: one loop, its optimizer and schedules, and the way in and out of a run."""
