"""Checkpoints from the Hub: which commit, which files, and what is said when they cannot be had."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hfexport.checkpoint import open_checkpoint
from hfexport.checkpoint.model_id import is_hub_id
from hfexport.errors import CheckpointError, InputsError
from hfexport.hub.client import WAITS_S, Hub
from hfexport.hub.snapshot import needed_files
from hfexport.hub.source import Source, locate
from hub.conftest import READER, TOKEN, Finished
from local_hub.server import LocalHub
from tiny import make_checkpoint

pytestmark = pytest.mark.usefixtures("client")


class Reader:
    """Reads `org/tiny` from the local Hub, and counts the pauses."""

    def __init__(self, hub: LocalHub, token: str | None = None) -> None:
        self.pauses: list[float] = []
        self.notes: list[str] = []
        self._hub = Hub(token, endpoint=hub.url, sleep=self.pauses.append, note=self.notes.append)

    def locate(self, revision: str = "main", model: str = "org/tiny", subfolder: str = "") -> Source:
        return locate(model, revision, subfolder, lambda: self._hub)

    def read(self, revision: str = "main", model: str = "org/tiny", subfolder: str = "") -> Path:
        return self.locate(revision, model, subfolder).fetch(lambda: self._hub, self.notes.append)[0]

    def refused(self, revision: str = "main", model: str = "org/tiny", subfolder: str = "") -> CheckpointError:
        with pytest.raises(CheckpointError) as caught:
            self.read(revision, model, subfolder)
        assert caught.value.exit_code == 3
        assert caught.value.remedy
        return caught.value


@pytest.fixture
def reader(hub: LocalHub) -> Reader:
    return Reader(hub)


def test_only_what_the_export_needs_is_downloaded(hub: LocalHub, reader: Reader, checkpoint: Path) -> None:
    folder = reader.read()
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {path.name for path in checkpoint.iterdir()}
    for path in checkpoint.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()
    asked = {call.path.rsplit("/", 1)[-1] for call in hub.calls if call.name == "resolve"}
    assert not asked & {"pytorch_model.bin", "tf_model.h5", "model.onnx", "README.md"}
    assert open_checkpoint(folder).model_type == "bert"


def test_a_branch_a_tag_a_pull_request_and_a_commit(hub: LocalHub, reader: Reader) -> None:
    repository = hub.repositories["org/tiny"]
    first = repository.head()
    repository.refs |= {"v1.0": first, "refs/pr/7": hub.change("org/tiny", {"vocab.txt": b"other"})}
    repository.tags.add("v1.0")
    for revision, commit in {
        "main": repository.head(),
        "v1.0": first,
        first: first,
        "refs/pr/7": repository.head(),
    }.items():
        source = reader.locate(revision)
        assert source.model is not None
        assert source.model.commit == commit
        assert source.model.revision == revision


def test_everything_goes_by_the_commit_that_was_looked_up(
    hub: LocalHub, reader: Reader, files: dict[str, bytes]
) -> None:
    source = reader.locate()
    hub.change("org/tiny", {"vocab.txt": b"changed meanwhile", "config.json": b"{}"})
    folder, digests = source.fetch(lambda: reader._hub, lambda _: None)
    assert (folder / "config.json").read_bytes() == files["config.json"]
    assert set(digests) == {path for path in folder.rglob("*") if path.is_file()}


def test_a_subfolder(hub: LocalHub, reader: Reader, files: dict[str, bytes]) -> None:
    hub.add("org/parts", {f"parts/encoder/{path}": content for path, content in files.items()})
    folder = reader.read(model="org/parts", subfolder="parts/encoder")
    assert open_checkpoint(folder).model_type == "bert"
    error = reader.refused(model="org/parts", subfolder="part")
    assert "'part'" in str(error)
    assert "parts" in error.remedy


def test_shards_are_those_of_the_index(hub: LocalHub, reader: Reader, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "sharded", "bert", "default", shards=3)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.add("org/sharded", {**files, "model-00009-of-00009.safetensors": b"left over", "pytorch_model.bin": b"no"})
    read = reader.read(model="org/sharded")
    assert {path.name for path in read.iterdir()} == set(files)
    shard = next(name for name in files if name.startswith("model-"))
    hub.change("org/sharded", {shard: None})
    assert shard in str(reader.refused(model="org/sharded"))


def test_weights_are_chosen_as_transformers_chooses(tmp_path: Path) -> None:
    def chosen(*names: str, variant: str = "") -> set[str]:
        (tmp_path / "index").write_text(json.dumps({"weight_map": {"a": names[-1]}}))
        return set(needed_files(names, lambda _: tmp_path / "index", variant)) - {"config.json"}

    assert chosen("config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5") == {"model.safetensors"}
    assert chosen("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack") == {"pytorch_model.bin"}
    assert chosen("tf_model.h5", "flax_model.msgpack") == {"tf_model.h5"}
    assert chosen("pytorch_model.bin.index.json", "shard.bin") == {"pytorch_model.bin.index.json", "shard.bin"}
    assert chosen("adapter_config.json", "adapter_model.safetensors", "pytorch_model.bin") == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert chosen("onnx/model.onnx", "rust_model.ot") == set()
    both = ("model.safetensors", "model.fp16.safetensors")
    assert chosen(*both) == {"model.safetensors"}
    assert chosen(*both, variant="fp16") == {"model.fp16.safetensors"}
    with pytest.raises(CheckpointError, match=r"(?s)has no weights: .*weights-variant: fp16"):
        chosen("model.fp16.safetensors")


def test_modules_of_sentence_transformers_come_along(tmp_path: Path) -> None:
    def needed(*names: str) -> set[str]:
        return set(needed_files(names, lambda _: tmp_path / "modules.json"))

    transformer = {"type": "sentence_transformers.models.Transformer", "path": ""}
    (tmp_path / "modules.json").write_text(json.dumps([transformer]))
    names = ("config.json", "modules.json", "1_Pooling/config.json", "2_Dense/model.safetensors", "model.safetensors")
    assert needed(*names) == set(names)
    assert "1_Pooling/config.json" not in needed(*names[:1], *names[2:])
    (tmp_path / "modules.json").write_text(json.dumps([{**transformer, "path": "0_Transformer"}]))
    own = {f"0_Transformer/{name}" for name in ("config.json", "tokenizer.json", "pytorch_model.bin")}
    others = {"modules.json", "1_Pooling/config.json"}
    assert needed(*own, *others, "0_Transformer/tf_model.h5", "README.md") == own | others


def test_code_comes_only_for_who_trusts_it(hub: LocalHub, reader: Reader) -> None:
    hub.change("org/tiny", {"modeling_own.py": b"raise SystemExit", "sub/other.py": b""})
    source = reader.locate()
    assert not (source.fetch(lambda: reader._hub, reader.notes.append)[0] / "modeling_own.py").exists()
    folder, _ = source.fetch(lambda: reader._hub, reader.notes.append, code=True)
    assert (folder / "modeling_own.py").exists()
    assert not (folder / "sub").exists()
    assert any(
        "will be run: modeling_own.py" in note and hub.repositories["org/tiny"].head() in note for note in reader.notes
    )


def test_what_is_in_the_cache_is_not_downloaded_again(hub: LocalHub, reader: Reader) -> None:
    reader.read()
    asked = hub.counted("resolve")
    hub.change("org/tiny", {"README.md": b"new"})
    reader.read()
    assert hub.counted("resolve") == asked  # blobs are shared between commits


def test_offline_uses_the_cache(hub: LocalHub, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = reader.read()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    calls = len(hub.calls)
    assert reader.read() == folder
    assert len(hub.calls) == calls
    error = reader.refused(revision="never-seen")
    assert "HF_HUB_OFFLINE" in str(error)
    assert "never-seen" in str(error)


def test_not_found(reader: Reader) -> None:
    error = reader.refused(model="org/tinny")
    assert "org/tinny" in str(error)
    assert "hub-token" in error.remedy
    assert "no folder here" in str(error)


def test_no_such_revision_names_those_that_are_there(hub: LocalHub, reader: Reader) -> None:
    hub.repositories["org/tiny"].refs["release"] = hub.repositories["org/tiny"].head()
    error = reader.refused(revision="relase")
    assert "'relase'" in str(error)
    assert "release" in error.remedy


def test_private_and_gated(hub: LocalHub, files: dict[str, bytes]) -> None:
    hub.add("org/private", files, private=True)
    hub.add("org/gated", files, gated=True)
    assert "hub-token" in Reader(hub).refused(model="org/private").remedy
    assert "valid" in Reader(hub, READER).refused(model="org/private").remedy
    gated = Reader(hub, READER).refused(model="org/gated")
    assert "gated" in str(gated)
    assert f"{hub.url}/org/gated" in gated.remedy
    assert "gated" in str(Reader(hub).refused(model="org/gated"))
    for model in ("org/private", "org/gated"):
        assert Reader(hub, TOKEN).read(model=model).is_dir()


def test_a_token_that_is_none(hub: LocalHub) -> None:
    assert "token" in Reader(hub, "hf_wrong").refused().remedy


def test_no_network(hub: LocalHub) -> None:
    closed = LocalHub()
    closed._server.server_close()
    reader = Reader(closed)
    error = reader.refused()
    assert "cannot be reached" in str(error)
    assert "HF_ENDPOINT" in error.remedy
    assert reader.pauses == list(WAITS_S)


@pytest.mark.parametrize("call", ["info", "tree", "head", "resolve"])
@pytest.mark.parametrize("status", [429, 503])
def test_an_answer_that_may_pass_is_waited_for(hub: LocalHub, reader: Reader, call: str, status: int) -> None:
    fault = hub.fail(call, "status", status=status, times=2)
    assert open_checkpoint(reader.read()).model_type == "bert"
    assert fault.met > 2


def test_retry_after_is_believed(hub: LocalHub, reader: Reader) -> None:
    hub.fail("info", "status", status=429, headers={"Retry-After": "37"})
    reader.read()
    assert reader.pauses == [37.0]
    assert "answered 429" in reader.notes[0]


@pytest.mark.parametrize("call", ["info", "tree", "head", "resolve"])
def test_a_dropped_connection_is_made_again(hub: LocalHub, reader: Reader, call: str) -> None:
    hub.fail(call, "reset", times=2)
    assert open_checkpoint(reader.read()).model_type == "bert"


@pytest.mark.parametrize("call", ["info", "tree", "head", "resolve"])
def test_an_answer_that_takes_too_long_is_asked_for_again(
    hub: LocalHub, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfexport.hub.client.ANSWER_TIMEOUT_S", 0.5)
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", 0.5)
    fault = hub.fail(call, "slow", seconds=1.0)
    assert open_checkpoint(Reader(hub).read()).model_type == "bert"
    assert fault.met > 1


def test_a_download_that_ends_early_goes_on_where_it_ended(
    hub: LocalHub, reader: Reader, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    hub.fail("resolve", "truncated", times=3, file="model.safetensors")
    folder = reader.read()
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert any(call.headers.get("Range") for call in hub.calls if call.name == "resolve")


def leave_half_done(hub: LocalHub, files: dict[str, bytes], cache: Path, content: bytes) -> Path:
    """A download of the weights as a process that was killed leaves it."""
    sha256 = hashlib.sha256(files["model.safetensors"]).hexdigest()
    part = cache / "models--org--tiny" / "blobs" / f"{sha256}.0123abcd.incomplete"
    part.parent.mkdir(parents=True)
    part.write_bytes(content)
    return part


def ranges(hub: LocalHub) -> list[str]:
    return [call.headers["Range"] for call in hub.calls if call.name == "resolve" and "Range" in call.headers]


def test_a_download_that_another_process_was_ended_in_goes_on(
    hub: LocalHub, reader: Reader, files: dict[str, bytes], tmp_path: Path
) -> None:
    part = leave_half_done(hub, files, tmp_path / "cache", files["model.safetensors"][:5000])
    hub.fail("resolve", "status", status=503, file="model.safetensors")
    hub.fail("resolve", "reset", skip=1, file="model.safetensors")
    folder = reader.read()
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert set(ranges(hub)) == {"bytes=5000-"}
    assert any("model.safetensors: resumes at" in note for note in reader.notes)
    assert not part.exists()


@pytest.mark.parametrize("content", [bytes(5000), bytes(10**6)])
def test_a_beginning_of_something_else_is_not_believed(
    hub: LocalHub, reader: Reader, files: dict[str, bytes], tmp_path: Path, content: bytes
) -> None:
    leave_half_done(hub, files, tmp_path / "cache", content)
    folder = reader.read()
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_a_file_with_holes_was_not_written_from_its_beginning(
    hub: LocalHub, reader: Reader, files: dict[str, bytes], tmp_path: Path
) -> None:
    part = leave_half_done(hub, files, tmp_path / "cache", b"")
    os.truncate(part, len(files["model.safetensors"]))
    folder = reader.read()
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert not ranges(hub)


@pytest.mark.thorough
@pytest.mark.parametrize("which", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_ended_in_a_download_goes_on_with_it_in_the_next(
    hub: LocalHub, environment: dict[str, str], run: Callable[..., Finished], tmp_path: Path, which: signal.Signals
) -> None:
    folder = make_checkpoint(tmp_path / "large", "bert", "sequence-classification", vocab_size=200_000)
    hub.add("org/large", {path.name: path.read_bytes() for path in folder.iterdir()})
    options = ("--model", "org/large", "--formats", "torchscript", "--validate", "off")
    fault = hub.fail("resolve", "stalled", file="model.safetensors")
    process = subprocess.Popen([sys.executable, "-m", "hfexport", *options], cwd=tmp_path, env=environment)
    assert fault.held.reached.wait(120)
    blobs = tmp_path / "home" / "hf" / "hub" / "models--org--large" / "blobs"
    while not any(path.stat().st_size >= 10 << 20 for path in blobs.glob("*.incomplete")):
        time.sleep(0.05)  # the client writes what it got, piece by piece
    process.send_signal(which)
    assert process.wait(60) == (-signal.SIGKILL if which == signal.SIGKILL else 143)
    fault.held.released.set()
    done = run(*options)
    assert done.exit_code == 0, done.said
    assert "model.safetensors: resumes at 10.5 of" in done.stderr
    assert ranges(hub) == ["bytes=10485760-"]


def test_a_download_with_other_bytes_is_fetched_once_more(
    hub: LocalHub, reader: Reader, files: dict[str, bytes]
) -> None:
    fault = hub.fail("resolve", "wrong-bytes", file="model.safetensors")
    folder = reader.read()
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert fault.met == 2


def test_a_download_that_is_always_wrong_is_refused_and_not_believed_later(
    hub: LocalHub, reader: Reader, files: dict[str, bytes]
) -> None:
    hub.fail("resolve", "wrong-bytes", times=100)
    assert "was downloaded twice, and differs" in str(reader.refused())
    hub.faults.clear()
    assert (reader.read() / "config.json").read_bytes() == files["config.json"]


def test_a_hub_that_stays_broken_is_an_error(hub: LocalHub, reader: Reader) -> None:
    hub.fail("info", "status", status=503, times=100)
    assert "answered 503" in str(reader.refused())
    assert len(reader.pauses) == len(WAITS_S)


def test_a_folder_has_no_revision(hub: LocalHub, reader: Reader, tmp_path: Path) -> None:
    with pytest.raises(InputsError, match="only the Hub has revisions"):
        reader.locate("v1.0", model=str(tmp_path))
    assert not hub.calls


def test_what_is_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("org/tiny")
    assert is_hub_id("org/tiny-v1.0_b")
    for folder in (".", "tiny", "./org/tiny", "/org/tiny", "org/tiny/", "a/b/c", "../tiny", "org/.."):
        assert not is_hub_id(folder)
    Path("org/tiny").mkdir(parents=True)
    assert not is_hub_id("org/tiny")


@pytest.mark.thorough
def test_from_the_command_line(hub: LocalHub, run: Callable[..., Finished]) -> None:
    hub.add("org/private", dict.fromkeys(()), private=True)
    hub.repositories["org/private"] = hub.repositories.pop("org/tiny")
    hub.repositories["org/private"].name, hub.repositories["org/private"].private = "org/private", True
    done = run("--model", "org/private", "--formats", "onnx", "--validate", "off", "--hub-token", TOKEN, "--json")
    assert done.exit_code == 0, done.said
    manifest = json.loads((done.folder / "hfexport-out" / "hfexport.json").read_text())
    assert manifest["source"]["hub"] == {
        "repository": "org/private",
        "revision": "main",
        "commit": hub.repositories["org/private"].head(),
        "subfolder": "",
    }
    assert "hub_token" not in manifest["inputs"]
    assert TOKEN not in done.said
    assert done.stderr.count("Traceback") == 0


@pytest.mark.thorough
def test_a_model_that_is_not_there_from_the_command_line(run: Callable[..., Finished]) -> None:
    done = run("--model", "org/nothing", "--hub-token", TOKEN, "--verbose")
    assert done.exit_code == 3, done.said
    assert "org/nothing" in done.stderr
    assert TOKEN not in done.said


@pytest.mark.parametrize("error", [OSError("read-only file system"), ValueError("x"), KeyError(), RuntimeError("")])
def test_a_hint_to_the_cache_that_fails_does_not_fail_the_run(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    client = Hub(None, endpoint=hub.url)
    asked = []

    def resolve(*given: object, **_: object) -> None:
        asked.append(given)
        raise error

    monkeypatch.setattr(client.api, "resolve_revision", resolve)
    assert client.commit_of("org/tiny", "main") == hub.repositories["org/tiny"].head()
    assert len(asked) == 1
