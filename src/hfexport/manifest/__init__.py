"""The manifest (hfexport.json): what a run made, from what, and every measured difference; and the job summary."""
