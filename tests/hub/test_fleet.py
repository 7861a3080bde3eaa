"""A fleet on the Hub: collections, searches, and models whose export is there and current."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from hfexport.errors import CheckpointError
from hfexport.hub.client import Hub
from hfexport.hub.groups import collection_models, search_models
from hub.conftest import TOKEN, Finished
from local_hub.made import make_output, publisher_of, source_of
from local_hub.server import LocalHub

pytestmark = pytest.mark.usefixtures("client")

SLUG = "org/release-2026-11-64f9a55bb3115b4f513ec026"


@pytest.fixture
def fleet(hub: LocalHub, files: dict[str, bytes], tmp_path: Path) -> Callable[[str], Path]:
    """Models of the local Hub, and a function that writes a fleet file into the folder that commands run in."""
    for name in ("org/one", "org/two", "org/three", "org/four"):
        hub.add(name, files)
        hub.model_tags[name] = ["export"]
    hub.collections[SLUG] = ["org/two", "org/tiny"]

    def write(text: str) -> Path:
        (tmp_path / "work").mkdir(exist_ok=True)
        path = tmp_path / "work" / "models.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def _reader(hub: LocalHub) -> Hub:
    return Hub(None, endpoint=hub.url, sleep=lambda _: None)


def test_a_collection_by_its_slug_and_by_its_name(hub: LocalHub, fleet: object) -> None:
    assert collection_models(_reader(hub), SLUG) == ["org/two", "org/tiny"]
    assert collection_models(_reader(hub), "org/release-2026-11") == ["org/two", "org/tiny"]
    with pytest.raises(CheckpointError) as caught:
        collection_models(_reader(hub), "org/release-2026-12")
    assert "no such collection" in str(caught.value)
    assert SLUG in str(caught.value)
    hub.collections["org/release-2026-11-0123456789abcdef01234567"] = []
    with pytest.raises(CheckpointError, match="is the name of 2 collections"):
        collection_models(_reader(hub), "org/release-2026-11")


def test_a_search_over_several_pages(hub: LocalHub, fleet: object) -> None:
    assert search_models(_reader(hub), "org", ["export"], None, 10) == ["org/four", "org/one", "org/three", "org/two"]
    assert search_models(_reader(hub), None, [], "TIN", 10) == ["org/tiny"]
    with pytest.raises(CheckpointError, match="finds more than 2 models"):
        search_models(_reader(hub), "org", ["export"], None, 2)


def test_lists_are_asked_for_again_when_the_hub_is_busy(hub: LocalHub, fleet: object) -> None:
    hub.fail("collection", "status", times=2)
    hub.fail("models", "reset")
    assert collection_models(_reader(hub), SLUG) == ["org/two", "org/tiny"]
    assert len(search_models(_reader(hub), "org", ["export"], None, 10)) == 4


def test_plan_on_the_command_line(run: Callable[..., Finished], fleet: Callable[[str], Path]) -> None:
    fleet(
        f"models:\n- collection: {SLUG}\n- search: {{author: org, tags: [export]}}\n- {{model: org/tiny, formats: onnx}}\n"
    )
    done = run("plan", "models.yaml")
    assert done.exit_code == 0, done.said
    names = [line.split()[0] for line in done.stdout.splitlines()[1:]]
    assert sorted(names) == ["org/four", "org/one", "org/three", "org/tiny", "org/two"]
    assert "unknown" not in done.stdout, "the size of the weights is known"
    assert "org/two is left to its own or an earlier entry" in done.stderr
    assert "5 to export" in done.stderr
    found = json.loads(run("plan", "models.yaml", "--matrix").stdout)
    assert len(found["include"]) == 5
    assert all(job["weights_bytes"] > 1000 for job in found["include"])


def test_a_missing_model_stays_and_a_missing_collection_ends_it(
    run: Callable[..., Finished], fleet: Callable[[str], Path]
) -> None:
    fleet("models:\n- model: org/none\n- model: org/one\n")
    done = run("plan", "models.yaml")
    assert done.exit_code == 0, done.said
    assert "models.yaml:2: org/none: org/none: no such model" in done.stderr
    fleet("models:\n- model: org/one\n- collection: org/none\n")
    done = run("plan", "models.yaml")
    assert done.exit_code == 3, done.said
    assert "models.yaml:3: collection: org/none: no such collection" in done.stderr


def test_published_and_current_exports_drop_out_with_the_reason(
    hub: LocalHub,
    run: Callable[..., Finished],
    fleet: Callable[[str], Path],
    files: Mapping[str, bytes],
    tmp_path: Path,
) -> None:
    source = source_of(hub)
    manifest = make_output(tmp_path / "out", source, files)
    published = publisher_of(hub, source, TOKEN).publish(tmp_path / "out", manifest)
    fleet("defaults: {push-to-hub: true}\nmodels:\n- model: org/tiny\n- model: org/one\n")
    writes = [call.method for call in hub.calls].count("POST")
    done = run("plan", "models.yaml", "--matrix")
    assert done.exit_code == 0, done.said
    assert [job["name"] for job in json.loads(done.stdout)["include"]] == ["org/one"]
    assert f"org/tiny: nothing to do, {published['commit_url']} is current" in done.stderr
    assert [call.method for call in hub.calls].count("POST") == writes, "a plan writes nothing"

    fleet("defaults: {push-to-hub: true}\nmodels:\n- {model: org/tiny, opset: 18}\n")
    done = run("plan", "models.yaml", "--matrix")
    assert [job["name"] for job in json.loads(done.stdout)["include"]] == ["org/tiny"]
    assert "holds an export, but its opset was None" in done.stderr


def test_an_export_in_its_folder_drops_out_until_something_changes(
    hub: LocalHub,
    run: Callable[..., Finished],
    fleet: Callable[[str], Path],
    files: Mapping[str, bytes],
    tmp_path: Path,
) -> None:
    fleet("models:\n- model: org/tiny\n")
    output = tmp_path / "work" / "hfexport-out" / "org--tiny"
    make_output(output, source_of(hub), files)
    done = run("plan", "models.yaml", "--json")
    assert "nothing to do, hfexport-out/org--tiny is current" in done.stderr
    assert json.loads(done.stdout)["todo"] == []

    (output / "onnx" / "model.onnx").write_bytes(b"a grapH")
    assert "onnx/model.onnx differs from its manifest" in run("plan", "models.yaml").stderr
    (output / "onnx" / "model.onnx").unlink()
    assert "onnx/model.onnx is missing" in run("plan", "models.yaml").stderr
    make_output(output, source_of(hub), files)
    hub.change("org/tiny", {"config.json": files["config.json"] + b" "})
    assert "it was made from commit" in run("plan", "models.yaml").stderr


def test_a_private_model_needs_its_token_which_is_nowhere(
    hub: LocalHub, run: Callable[..., Finished], fleet: Callable[[str], Path]
) -> None:
    hub.repositories["org/one"].private = True
    fleet("models:\n- model: org/one\n")
    assert "or a request without a token may not see it" in run("plan", "models.yaml").stderr
    done = run("plan", "models.yaml", "--matrix", HF_TOKEN=TOKEN)
    assert "warning" not in done.stderr, done.said
    assert TOKEN not in done.said
