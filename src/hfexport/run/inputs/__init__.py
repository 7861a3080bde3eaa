"""The inputs: one frozen `Inputs` whose fields are the source of options, `INPUT_*`, action.yml and docs/inputs.md.

An input is given as an option (`--batch-size 2`), or as the variable that GitHub's runner makes of a workflow's `with:`
(`INPUT_BATCH-SIZE`: upper-case, hyphens kept). The command line wins, input by input. Of variables, an empty one counts
as unset and surrounding whitespace is dropped. A variable that is no input is left alone, since an enclosing action may
have set it; only one that misspells an input is an error, because the runner passes on what it does not know.

All problems are gathered before any is reported. Standard library only: a wrong input costs no heavy import.
"""

from __future__ import annotations

from hfexport.run.inputs.fields import FLAGS, OUTPUTS, Inputs, deciding_inputs, input_fields, recorded
from hfexport.run.inputs.input_field import GROUPS, InputField
from hfexport.run.inputs.reading import SHORT, Parsed, Syntax, given_secrets, parse_inputs

__all__ = [
    "FLAGS",
    "GROUPS",
    "OUTPUTS",
    "SHORT",
    "InputField",
    "Inputs",
    "Parsed",
    "Syntax",
    "deciding_inputs",
    "given_secrets",
    "input_fields",
    "parse_inputs",
    "recorded",
]
