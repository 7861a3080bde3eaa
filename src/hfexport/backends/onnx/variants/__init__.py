"""Variants: further ONNX files of a model, smaller or faster than the plain one and equal to it only within a measured loss.

`names.py` is the table of variants, and `make.py` makes one from the plain file. Each kind has a module:

- `half.py`: float16 weights and float32 inputs and outputs;
- `integers.py`: 8-bit weights and activations;
- `blocks.py`: 4-bit weights in blocks;
- `optimised.py`: the same weights with fused operators.

`graph.py` reads a file without its weights and `rewrite.py` replaces operators with constant weights, also in branches.
"""
