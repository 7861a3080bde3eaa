"""The manifest (hfexport.json) with a run's artifacts, sources and measured differences, and the job summary."""
