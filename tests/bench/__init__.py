"""`./dev bench`: the driver's costs, as ratios and shares within a run."""
