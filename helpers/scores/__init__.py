"""How good a score is, from notebook 04 on: intervals over groups, figures, and blind baselines."""
