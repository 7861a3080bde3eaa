"""Infer an export config by running the model: its inputs, its outputs, and which axes are free."""
