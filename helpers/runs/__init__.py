"""Many notebooks, many runs: parameters, the series through papermill, grids and their comparison."""
