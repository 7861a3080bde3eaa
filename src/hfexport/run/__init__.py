"""One run, from checked inputs to published artifacts."""
