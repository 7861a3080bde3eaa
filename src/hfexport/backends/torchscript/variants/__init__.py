"""Variants of TorchScript files: frozen graphs, and linear layers with 8-bit weights."""
