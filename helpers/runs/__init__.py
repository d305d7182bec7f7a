"""Many notebooks, many runs: parameters, the series through papermill, grids, their comparison."""
