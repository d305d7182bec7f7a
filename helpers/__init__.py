"""The code behind the notebooks: one module a notebook, and the few that they share."""
