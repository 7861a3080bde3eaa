"""Adapters on the Hub: merged into their base at one commit of each, and known again only while both are the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters import make_adapter
from hfexport.manifest.entries import check_manifest, new_manifest
from hfexport.run.inputs import Inputs, deciding_inputs, recorded
from hub.conftest import TOKEN, Finished
from local_hub.made import make_output, publisher_of, source_of
from local_hub.server import LocalHub

BASE = {"repository": "org/base", "revision": "main", "commit": "1" * 40, "subfolder": ""}
MOVED = {**BASE, "commit": "2" * 40}
FOLDER = {"files": {"model.safetensors": "3" * 64}, "along": {"vocab.txt": "4" * 64}, "hub": None}


def entry(**base: Any) -> dict[str, Any]:
    """What a manifest says of an adapter's base."""
    rest = {"model": "org/base", "dtype": "fp32", "weight_format": "safetensors", "conversion": None}
    return {"kind": "LORA", "base": {**rest, "hub": None, "files": [], **base}}


def listed(files: dict[str, str]) -> list[dict[str, Any]]:
    return [{"path": path, "size_bytes": 1, "sha256": digest} for path, digest in files.items()]


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize(
    ("published", "now", "reason"),
    [
        (entry(hub=BASE), {"hub": BASE}, ""),
        (entry(hub=BASE), {"hub": MOVED}, "of the adapter's base, it was made from commit 111111111111"),
        (entry(hub=BASE), FOLDER, "of the adapter's base, it was made from somewhere else"),
        (entry(hub=BASE), None, "it was made from an adapter"),
        (entry(files=listed(FOLDER["files"])), FOLDER, "files copied along have changed"),
        (entry(files=listed(FOLDER["files"])), {**FOLDER, "along": {}}, ""),
        (
            entry(files=listed({"model.safetensors": "5" * 64})),
            FOLDER,
            "of the adapter's base, the checkpoint has changed",
        ),
    ],
)
def test_an_export_of_an_adapter_answers_for_its_base(
    hub: LocalHub,
    files: dict[str, bytes],
    tmp_path: Path,
    published: dict[str, Any],
    now: dict[str, Any] | None,
    reason: str,
) -> None:
    notes: list[str] = []
    source = source_of(hub)
    manifest = make_output(tmp_path / "out", source, files)
    publisher_of(hub, source, TOKEN).publish(tmp_path / "out", manifest)
    manifest["source"]["adapter"] = published
    check_manifest(manifest)
    hub.change("org/tiny", {"hfexport.json": json.dumps(manifest).encode()})
    source = source_of(hub)
    assert source.model is not None
    wanted = new_manifest(recorded(Inputs()), "2026-02-02T00:00:00+00:00")
    publisher = publisher_of(hub, source, TOKEN, note=notes.append)
    found = publisher.answered(wanted, deciding_inputs(), {"hub": source.model.to_dict()}, lambda: now)
    assert (found is None) == bool(reason)
    assert not reason or reason in notes[-1]


@pytest.mark.thorough
def test_from_the_command_line(hub: LocalHub, run: Callable[..., Finished], checkpoint: Path, tmp_path: Path) -> None:
    adapter = make_adapter(
        tmp_path / "lora", checkpoint, "AutoModelForSequenceClassification", "SEQ_CLS", named="org/tiny"
    )
    hub.add("org/lora", {path.name: path.read_bytes() for path in adapter.iterdir()})
    options = ("--model", "org/lora", "--push-to-hub", "true", "--formats", "onnx", "--hub-token", TOKEN)

    def published() -> dict[str, Any]:
        done = run(*options)
        assert done.exit_code == 0, done.said
        return {"said": done.said, **json.loads(hub.read("org/lora", "hfexport.json"))["source"]}

    lora, base = (hub.repositories[name].head() for name in ("org/lora", "org/tiny"))
    first = published()
    assert (first["hub"]["commit"], first["adapter"]["base"]["hub"]["commit"]) == (lora, base)
    export = hub.repositories["org/lora"].head()
    assert "nothing to do" in published()["said"]
    assert hub.repositories["org/lora"].head() == export

    moved = hub.change("org/tiny", {"vocab.txt": b"other words"})
    verified = run("verify", "org/lora")
    assert verified.exit_code == 0, verified.said
    second = published()
    assert f"of the adapter's base, it was made from commit {base[:12]}" in second["said"]
    assert second["adapter"]["base"]["hub"]["commit"] == moved
    assert hub.repositories["org/lora"].head() != export

    here = tmp_path / "work" / "here"
    shutil.copytree(tmp_path / "work" / "hfexport-out", here)
    manifest = json.loads((here / "hfexport.json").read_bytes())
    forged = manifest["source"]["adapter"]["base"]
    weights = next(file for file in forged["files"] if file["path"] == "model.safetensors")
    for change, said in (
        (lambda: weights.update(sha256="0" * 64), "model.safetensors: the adapter's base has another one"),
        (lambda: forged["hub"].update(repository="org/other"), "its base is org/tiny"),
    ):
        change()
        (here / "hfexport.json").write_text(json.dumps(manifest))
        done = run("verify", "here")
        assert done.exit_code == 6, done.said
        assert said in done.stderr
