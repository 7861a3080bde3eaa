"""Uploads by Xet, which the client chooses by itself where the Hub has it; here its store is a folder."""

from __future__ import annotations

from pathlib import Path

import hf_xet
import pytest

from hub.conftest import TOKEN
from local_hub.made import ARTIFACTS, make_output, publisher_of, source_of
from local_hub.server import LocalHub

pytestmark = pytest.mark.usefixtures("client")


def test_artifacts_go_up_by_xet(
    hub: LocalHub, tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    store = tmp_path / "xet"
    store.mkdir()
    hub.xet_folder = str(store)
    source = source_of(hub)
    output = tmp_path / "out"
    manifest = make_output(output, source, files)
    publication = publisher_of(hub, source, TOKEN).publish(output, manifest)
    assert publication["state"] == "committed"
    assert hub.counted("xet-token") > 0
    assert hub.counted("lfs-upload") == 0
    for path in ARTIFACTS:
        (hashed,) = hf_xet.hash_files([str(output / path)])
        fetched = tmp_path / "fetched"
        session = hf_xet.XetSession()
        with session.new_file_download_group(endpoint=f"local://{store}") as group:
            group.start_download_file(hf_xet.XetFileInfo(hashed.hash, hashed.file_size), str(fetched))
        assert fetched.read_bytes() == ARTIFACTS[path]
