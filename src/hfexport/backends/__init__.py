"""Back ends: one package per format, each with a `Backend` (see `base`). `formats` is the table of all formats."""
