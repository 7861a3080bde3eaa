"""preprocessor_config.json of a checkpoint: read for the sizes of images, and not trusted."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfexport.errors import CheckpointError
from hfexport.modeling.find_export_config import _preprocessor_config


@pytest.mark.parametrize(("content", "values"), [('{"size": 3}', {"size": 3}), ("[]", {}), ("null", {})])
def test_its_values(tmp_path: Path, content: str, values: dict[str, int]) -> None:
    assert _preprocessor_config(tmp_path) == {}
    (tmp_path / "preprocessor_config.json").write_text(content)
    assert _preprocessor_config(tmp_path) == values


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, '{"x": ' * 50_000, '"' + "x" * 2**24 + '"'], ids=range(5))
def test_a_damaged_one_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json"):
        _preprocessor_config(tmp_path)
