"""What the scripts print: lines, bars, and what to do next."""
