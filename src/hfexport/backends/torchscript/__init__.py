"""TorchScript back end: trace a model and write a reproducible archive with its weights."""
