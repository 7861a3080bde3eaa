"""The plan of a push: the files that it may replace."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfexport.checkpoint import sha256
from hfexport.errors import PublishError
from hfexport.hub.client import HubFile
from hfexport.hub.publish.plan import LocalFile, make_plan


@pytest.mark.parametrize(
    "path", ["genai_config.json", "audio_processor_config.json", "onnx/model.onnx", "hfexport.json"]
)
def test_files_of_an_export_are_replaced(path: str, tmp_path: Path) -> None:
    (change,) = make_plan([_local(tmp_path, path)], _tree(path), earlier=None, prefix="", place="owner/name").changes
    assert (change.operation, change.path) == ("replace", path)


@pytest.mark.parametrize("path", ["config.json", "tokenizer.json", "other/genai_config.json"])
def test_other_files_are_not_replaced(path: str, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="holds another"):
        make_plan([_local(tmp_path, path)], _tree(path), earlier=None, prefix="", place="owner/name")


def _local(folder: Path, path: str) -> LocalFile:
    (folder / "file").write_text("new")
    return LocalFile(path, folder / "file", 3, sha256(folder / "file"))


def _tree(path: str) -> dict[str, HubFile]:
    return {path: HubFile(path, 5, "0" * 40, None)}
