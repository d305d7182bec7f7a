"""Figures: their style, maps on photographs, an explorer, diagrams.

Notebook 05, and all that draw.
"""
