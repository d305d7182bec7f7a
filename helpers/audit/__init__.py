"""Whether a map is right and whether it is used: notebook 06 and the deeper ones."""
