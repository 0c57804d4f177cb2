"""From a network's proposals to detections, and how good these are."""
