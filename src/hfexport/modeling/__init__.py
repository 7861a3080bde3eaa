"""Models of transformers: load them, wrap them as flat-tensor modules, and work out the export config of unknown ones."""
