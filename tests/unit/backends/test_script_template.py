"""Templates of TorchScript archives: their description is checked when they are read."""

from __future__ import annotations

from typing import Any

import pytest

from hfexport.backends.torchscript.template import Script, decode, encode

ENTRY = {"name": "input_ids", "dtype": "int64", "axes": ["batch", "sequence"], "role": "token_ids", "pad_value": 0}


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": 3},
        {"inputs": [{**ENTRY, "role": "none"}]},
        {"inputs": [{**ENTRY, "axes": "batch"}]},
        {"outputs": [{"name": "logits"}]},
        {"fixed_sizes": {"batch": "one"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_template_with_another_description_is_refused(change: dict[str, Any]) -> None:
    description: Any = {"inputs": [ENTRY], "outputs": [], "fixed_sizes": {}, "metadata": {}, **change}
    script = Script(root="model", description=description, weights=(), records=(), nodes=0, operators={}, untied=0)
    with pytest.raises(ValueError, match=r"at `\$\.description"):
        decode(encode(script))
