"""How good a score is: intervals over groups, figures of merit, guesses that see no lesion. From notebook 04 on."""
