"""Neuron back end: compile a checkpoint for Inf1 or Inf2 with AWS's Neuron SDK, in the SDK's own interpreter.

The SDK needs an older torch than hfexport, so it has a Python environment of its own. `worker` is the code that runs
there; `protocol` exchanges files with it and checks every answer; `backend` makes the artifact.
"""
