"""Steps of a run, from checked inputs to published artifacts."""
