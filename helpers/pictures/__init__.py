"""Figures: their style, maps on photographs, the explorer, diagrams. Notebook 05, and all that draw."""
