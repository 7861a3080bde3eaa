"""Inputs: one frozen `Inputs` class that defines options, `INPUT_*`, action.yml and docs/inputs.md.

An input is given as an option (`--batch-size 2`) or as the variable that GitHub's runner sets for `with:`
(`INPUT_BATCH-SIZE`: upper case, hyphens kept). The command line overrides variables, input by input. An empty variable
counts as unset, and surrounding whitespace is dropped. Unknown variables are ignored, since an enclosing action may
have set them. Only a variable that looks like a misspelt input is an error, because the runner passes unknown inputs
on.

All problems are collected and reported together. Standard library only, so that errors in inputs are reported fast.
"""

from __future__ import annotations

from hfexport.run.inputs.fields import FLAGS, OUTPUTS, Inputs, deciding_inputs, input_fields, recorded
from hfexport.run.inputs.input_field import GROUPS, InputField
from hfexport.run.inputs.reading import SHORT, Parsed, Syntax, check_inputs, given_secrets, parse_inputs

__all__ = [
    "FLAGS",
    "GROUPS",
    "OUTPUTS",
    "SHORT",
    "InputField",
    "Inputs",
    "Parsed",
    "Syntax",
    "check_inputs",
    "deciding_inputs",
    "given_secrets",
    "input_fields",
    "parse_inputs",
    "recorded",
]
