"""Many models in one file: plan, run on one machine, and gather the results. Imports no torch."""
