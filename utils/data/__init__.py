"""From a `.data` file to batches: definition, sources, labels, validation, datasets, augment."""
