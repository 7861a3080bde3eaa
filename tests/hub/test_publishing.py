"""What a push changes, what it leaves alone, and what it does when the Hub does not do its part."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hfexport.errors import PublishError
from hfexport.hub.client import configure_process
from hfexport.hub.source import Source, describe_source
from hfexport.manifest.entries import check_manifest, new_manifest
from hfexport.run.inputs import Inputs, deciding_inputs, recorded
from hub.conftest import READER, TOKEN
from local_hub.made import ARTIFACTS, make_output, publisher_of, source_of
from local_hub.server import LocalHub

pytestmark = pytest.mark.usefixtures("client")


class Push:
    """Publishes an output folder made by hand to the local Hub."""

    def __init__(self, hub: LocalHub, folder: Path, files: dict[str, bytes]) -> None:
        self.hub, self.folder, self.files = hub, folder, files
        self.notes: list[str] = []
        self.source = source_of(hub)
        self.artifacts = dict(ARTIFACTS)

    def __call__(self, *, meanwhile: Callable[[], Any] = lambda: None, **options: Any) -> dict[str, Any]:
        publisher = publisher_of(self.hub, self.source, options.pop("token", TOKEN), note=self.notes.append, **options)
        output = self.folder / "out"
        manifest = make_output(output, self.source, self.files, self.artifacts)
        meanwhile()
        publication = publisher.publish(output, manifest)
        check_manifest({**manifest, "publication": publication})
        return publication

    def refused(self, **options: Any) -> PublishError:
        """The error; the repositories must be as they were."""
        before = {name: repository.head() for name, repository in self.hub.repositories.items()}
        moved: dict[str, str] = {}
        meanwhile = options.pop("meanwhile", lambda: None)

        def and_remember() -> None:
            meanwhile()
            moved.update({name: repository.head() for name, repository in self.hub.repositories.items()})

        with pytest.raises(PublishError) as caught:
            self(meanwhile=and_remember, **options)
        assert {name: repository.head() for name, repository in self.hub.repositories.items()} == (moved or before)
        assert caught.value.exit_code == 7
        assert caught.value.remedy
        return caught.value

    def answered(self, formats: tuple[str, ...] = ("onnx", "torchscript"), **options: Any) -> dict[str, Any] | None:
        publisher = publisher_of(self.hub, source_of(self.hub), TOKEN, note=self.notes.append, **options)
        wanted = new_manifest(recorded(Inputs(formats=formats)), "2026-02-02T00:00:00+00:00")
        model = source_of(self.hub).model
        assert model is not None
        return publisher.answered(wanted, deciding_inputs(), {"hub": model.to_dict()}, lambda: None)


@pytest.fixture
def push(hub: LocalHub, tmp_path: Path, files: dict[str, bytes]) -> Push:
    return Push(hub, tmp_path, files)


def operations(publication: dict[str, Any]) -> dict[str, str]:
    return {change["path"]: change["operation"] for change in publication["operations"]}


def test_one_commit_on_top_of_what_was_read(hub: LocalHub, push: Push, files: dict[str, bytes]) -> None:
    repository = hub.repositories["org/tiny"]
    start = repository.head()
    publication = push()
    assert publication["state"] == "committed"
    commit = repository.resolve("main")
    assert (commit.sha, commit.parent) == (publication["commit"], start)
    assert commit.title == "Add ONNX and TorchScript exports"
    for path, content in ARTIFACTS.items():
        assert hub.read("org/tiny", path) == content
    assert json.loads(hub.read("org/tiny", "hfexport.json"))["publication"] is None
    for path, content in files.items():
        if path not in ("README.md", "onnx/model.onnx"):
            assert hub.read("org/tiny", path) == content
    assert operations(publication) == {
        **{"README.md": "replace", "hfexport.json": "add"},
        **{"onnx/model.onnx": "replace", "torchscript/model.pt": "add"},
    }
    assert hub.counted("commit") == 1


def test_what_an_earlier_export_left_is_deleted_and_nothing_else(hub: LocalHub, push: Push) -> None:
    push.artifacts |= {"onnx/model.onnx_data": b"weights"}
    push()
    hub.change("org/tiny", {"onnx/model_quantized.onnx": b"somebody else's"})
    del push.artifacts["onnx/model.onnx_data"], push.artifacts["torchscript/model.pt"]
    push.source = source_of(hub)
    publication = push()
    assert operations(publication)["onnx/model.onnx_data"] == "delete"
    assert operations(publication)["torchscript/model.pt"] == "delete"
    held = hub.repositories["org/tiny"].resolve("main").tree
    assert "onnx/model_quantized.onnx" in held
    assert {"model.safetensors", "config.json", "vocab.txt", "pytorch_model.bin"} <= held.keys()


@pytest.mark.thorough
@pytest.mark.parametrize("path", ["model.safetensors", "../x", "onnx/../model.safetensors", "vocab.txt", "README.md"])
def test_a_manifest_that_lists_other_files_deletes_none_of_them(hub: LocalHub, push: Push, path: str) -> None:
    push()
    planted = json.loads(hub.read("org/tiny", "hfexport.json"))
    planted["artifacts"][0]["files"].append({"path": path, "size_bytes": 1, "sha256": "0" * 64})
    hub.change("org/tiny", {"hfexport.json": json.dumps(planted).encode()})
    push.source = source_of(hub)
    assert "delete" not in operations(push()).values()


def test_a_repository_is_made_for_it(hub: LocalHub, push: Push) -> None:
    publication = push(repository="org/new", private=True)
    assert publication["state"] == "committed"
    assert hub.repositories["org/new"].private
    held = hub.repositories["org/new"].resolve("main").tree
    assert {"config.json", "tokenizer.json", "hfexport.json", *ARTIFACTS} <= held.keys()
    assert "model.safetensors" not in held
    card = hub.read("org/new", "README.md").decode()
    assert "base_model: org/tiny\nbase_model_relation: quantized\n" in card
    assert "library_name: onnx\n" in card


def test_a_repository_of_exports_follows_its_source(hub: LocalHub, push: Push, files: dict[str, bytes]) -> None:
    push(repository="org/exports")
    hub.change("org/tiny", {"vocab.txt": b"new words", "tokenizer.json": None})
    push.files = {**files, "vocab.txt": b"new words"}
    del push.files["tokenizer.json"]
    (push.folder / "out" / "tokenizer.json").unlink()
    push.source = source_of(hub)
    publication = push(repository="org/exports")
    assert operations(publication)["vocab.txt"] == "replace"
    assert operations(publication)["tokenizer.json"] == "delete"


def test_a_branch_is_made_for_it(hub: LocalHub, push: Push) -> None:
    repository = hub.repositories["org/tiny"]
    main = repository.head()
    push(branch="exports")
    assert repository.head() == main
    assert repository.resolve("exports").parent == main
    assert hub.read("org/tiny", "torchscript/model.pt", "exports") == ARTIFACTS["torchscript/model.pt"]


def test_a_branch_is_there_only_once_everything_large_is_uploaded(hub: LocalHub, push: Push) -> None:
    push(branch="exports")
    names = [call.name for call in hub.calls]
    uploads = [number for number, name in enumerate(names) if name == "lfs-upload"]
    assert len(uploads) == len(ARTIFACTS)
    assert max(uploads) < names.index("create-branch") < names.index("commit")


NEW = [{"repository": "org/new"}, {"repository": "org/new", "branch": "exports"}, {"branch": "exports"}]
"""Destinations that a push has to make."""


@pytest.mark.parametrize("options", NEW)
@pytest.mark.parametrize("lost", ["", "create-repo", "create-branch"])
def test_what_was_made_for_a_push_goes_again_if_it_fails(
    hub: LocalHub, push: Push, options: dict[str, str], lost: str
) -> None:
    refs = dict(hub.repositories["org/tiny"].refs)
    if lost:  # it is made, but the answer never comes
        hub.fail(lost, "lost")
    hub.fail("commit", "status", status=403)
    assert "may not do this" in str(push.refused(**options))
    assert hub.repositories.keys() == {"org/tiny"}
    assert hub.repositories["org/tiny"].refs == refs
    assert "was removed again" in push.notes[-1]


def test_a_repository_goes_again_if_its_branch_cannot_be_made(hub: LocalHub, push: Push) -> None:
    hub.fail("create-branch", "status", status=403)
    push.refused(repository="org/new", branch="exports")
    assert hub.repositories.keys() == {"org/tiny"}


@pytest.mark.parametrize("options", NEW)
def test_what_somebody_has_committed_to_meanwhile_stays(hub: LocalHub, push: Push, options: dict[str, str]) -> None:
    name, branch = options.get("repository", "org/tiny"), options.get("branch", "main")
    hub.fail("commit", "before", action=lambda: hub.change(name, {"notes.txt": b"mine"}, branch))
    hub.fail("commit", "status", status=403, skip=1)
    with pytest.raises(PublishError, match="may not do this"):
        push(**options)
    assert hub.read(name, "notes.txt", branch) == b"mine"


def test_what_cannot_be_removed_again_is_told(hub: LocalHub, push: Push) -> None:
    hub.fail("commit", "status", status=403)
    hub.fail("delete-repo", "status", status=403)
    with pytest.raises(PublishError, match="may not do this"):
        push(repository="org/new")
    assert "org/new, created for this push, still exists and is empty" in push.notes[-1]
    assert set(hub.repositories["org/new"].files()) == {".gitattributes"}
    assert push(repository="org/new")["state"] == "committed"


def test_the_checkpoint_of_somebody_else_is_not_overwritten(hub: LocalHub, push: Push, files: dict[str, bytes]) -> None:
    hub.add("org/other", {**files, "config.json": b'{"model_type": "gpt2"}'})
    assert "config.json" in str(push.refused(repository="org/other"))
    hub.add("org/retrained", {**files, "model.safetensors": b"other weights"})
    assert "model.safetensors" in str(push.refused(repository="org/retrained"))


def test_an_old_revision_is_not_published_over_a_newer_checkpoint(hub: LocalHub, push: Push) -> None:
    old = hub.repositories["org/tiny"].head()
    hub.change("org/tiny", {"model.safetensors": b"trained on"})
    push.source = source_of(hub, revision=old)
    error = push.refused()
    assert "model.safetensors" in str(error)
    assert push(branch="old")["state"] == "committed"


def test_a_dry_run_says_what_a_push_then_does(hub: LocalHub, push: Push) -> None:
    calls = len(hub.calls)
    dry = push(dry_run=True)
    assert all(call.method in ("GET", "HEAD") for call in hub.calls[calls:])
    assert hub.repositories["org/tiny"].history()[0].title == "initial commit"
    said = "\n".join(push.notes)
    assert push()["operations"] == dry["operations"]
    for change in dry["operations"]:
        assert change["path"] in said
        assert change["sha256"] in said
    assert "keep     config.json" in said
    for repository, branch in (("org/nowhere", "main"), ("org/tiny", "other")):
        push.notes.clear()
        push(dry_run=True, repository=repository, branch=branch)
        assert "create" in "\n".join(push.notes)
    assert "org/nowhere" not in hub.repositories
    assert "other" not in hub.repositories["org/tiny"].refs


def test_without_the_right_to_write(hub: LocalHub, push: Push) -> None:
    assert "rights" in str(push.refused(token=READER))
    assert "rights" in str(push.refused(token=READER, repository="org/unknown"))


@pytest.mark.thorough
@pytest.mark.parametrize(
    "call", ["preupload", "lfs-batch", "lfs-upload", "lfs-verify", "commit", "validate-yaml", "tree"]
)
@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_answer_that_may_pass_is_waited_for(hub: LocalHub, push: Push, call: str, status: int) -> None:
    fault = hub.fail(call, "status", status=status, times=2)
    assert push()["state"] == "committed"
    assert fault.met > 2
    assert [commit.title for commit in hub.repositories["org/tiny"].history()].count("initial commit") == 1
    assert len(hub.repositories["org/tiny"].history()) == 2


@pytest.mark.thorough
@pytest.mark.parametrize(
    "call", ["preupload", "lfs-batch", "lfs-upload", "lfs-verify", "commit", "validate-yaml", "tree"]
)
@pytest.mark.parametrize("kind", ["reset", "lost"])
def test_a_dropped_connection_is_made_again_and_the_commit_only_once(
    hub: LocalHub, push: Push, call: str, kind: str
) -> None:
    hub.fail(call, kind)
    publication = push()
    assert publication["state"] == "committed"
    assert publication["commit"] == hub.repositories["org/tiny"].head()
    assert len(hub.repositories["org/tiny"].history()) == 2


@pytest.mark.parametrize("call", ["validate-yaml", "preupload", "lfs-batch", "lfs-upload", "commit", "tree"])
def test_an_answer_that_takes_too_long_is_asked_for_again_and_the_commit_made_once(
    hub: LocalHub, push: Push, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Hub does what it was asked for all the same, late."""
    monkeypatch.setattr("hfexport.hub.client.ANSWER_TIMEOUT_S", 0.5)
    configure_process()  # a client that reads the limit; the next test's fixture makes another
    fault = hub.fail(call, "slow", seconds=1.0)
    publication = push()
    assert publication["state"] == "committed"
    assert fault.met > 1
    assert len(hub.repositories["org/tiny"].history()) == 2
    assert publication["commit"] == hub.repositories["org/tiny"].head()


def test_parts_of_a_large_file(hub: LocalHub, push: Push) -> None:
    hub.part_bytes = 1000
    push.artifacts["onnx/model.onnx"] = bytes(range(256)) * 40
    hub.fail("lfs-part", "reset", skip=3)
    hub.fail("lfs-complete", "status", status=503)
    assert push()["state"] == "committed"
    assert hub.read("org/tiny", "onnx/model.onnx") == push.artifacts["onnx/model.onnx"]


@pytest.mark.thorough
@pytest.mark.parametrize("call", ["lfs-upload", "commit"])
def test_a_hub_that_stays_broken_leaves_the_repository_as_it_was(hub: LocalHub, push: Push, call: str) -> None:
    hub.fail(call, "status", status=503, times=10_000)
    assert "503" in str(push.refused())


def test_a_branch_that_moved_elsewhere_is_built_upon(hub: LocalHub, push: Push) -> None:
    def edit() -> None:
        hub.change("org/tiny", {"notes.txt": b"by a colleague", "README.md": b"# Rewritten\n"})

    assert push(meanwhile=edit)["state"] == "committed"
    titles = [commit.title for commit in hub.repositories["org/tiny"].history()]
    assert titles == ["Add ONNX and TorchScript exports", "Change", "initial commit"]
    assert hub.read("org/tiny", "notes.txt") == b"by a colleague"
    assert hub.read("org/tiny", "README.md").decode().count("# Rewritten\n") == 1


@pytest.mark.thorough
@pytest.mark.parametrize("path", ["model.safetensors", "config.json", "onnx/model.onnx", "torchscript/model.pt"])
def test_a_branch_that_moved_where_it_matters_is_refused(hub: LocalHub, push: Push, path: str) -> None:
    error = push.refused(meanwhile=lambda: hub.change("org/tiny", {path: b"changed meanwhile"}))
    assert path in str(error)
    assert "while this ran" in str(error)


def test_a_branch_that_keeps_moving_is_given_up(hub: LocalHub, push: Push) -> None:
    for number in range(3):
        content = b"%d" % number
        hub.fail("commit", "before", skip=number, action=lambda content=content: hub.change("org/tiny", {"n": content}))
    with pytest.raises(PublishError, match="moved again"):
        push()


def test_what_a_gitignore_leaves_out_is_noticed(hub: LocalHub, push: Push) -> None:
    hub.repositories["org/tiny"].ignored = ("*.pt",)
    with pytest.raises(PublishError, match=r"lacks torchscript/model\.pt") as caught:
        push()
    assert "gitignore" in caught.value.remedy


def test_metadata_that_the_hub_refuses(hub: LocalHub, push: Push) -> None:
    hub.change("org/tiny", {"README.md": b"---\nlibrary_name: [a, b]\n---\n"})
    push.source = source_of(hub)
    error = push.refused()
    assert "library_name" in str(error)
    assert "README.md" in error.remedy


# Pull requests.


def test_a_pull_request_and_the_same_one_again(hub: LocalHub, push: Push) -> None:
    repository = hub.repositories["org/tiny"]
    main = repository.head()
    publication = push(create_pr=True)
    assert publication["state"] == "pull_request"
    assert publication["pull_request_url"] == f"{hub.url}/org/tiny/discussions/1"
    assert repository.head() == main
    body = repository.pull_request(1).comments[0].content
    assert "revision='refs/pr/1'" in body
    assert "| onnx | onnx/model.onnx |" in body
    push.artifacts["onnx/model.onnx"] = b"a better graph"
    del push.artifacts["torchscript/model.pt"]
    publication = push(create_pr=True)
    assert len(repository.pull_requests) == 1
    assert hub.read("org/tiny", "onnx/model.onnx", "refs/pr/1") == b"a better graph"
    assert "torchscript/model.pt" not in repository.files("refs/pr/1")
    request = repository.pull_request(1)
    assert request.title == "Add ONNX exports"
    assert "torchscript" not in request.comments[0].content
    push(create_pr=True, message="Exports, once more")
    assert request.title == "Exports, once more"


def test_pull_requests_of_others_are_left_alone(hub: LocalHub, push: Push) -> None:
    repository = hub.repositories["org/tiny"]
    push(create_pr=True)
    repository.pull_request(1).author = repository.pull_request(1).comments[0].author = "stranger"
    assert push(create_pr=True)["pull_request_url"].endswith("/2")
    repository.pull_request(2).status = "closed"
    assert push(create_pr=True)["pull_request_url"].endswith("/3")
    hub.add("org/another", push.files)
    push.source = source_of(hub, "org/another")
    assert push(create_pr=True)["pull_request_url"].endswith("/4")


def test_a_reader_may_open_one(hub: LocalHub, push: Push) -> None:
    assert push(create_pr=True, token=READER)["state"] == "pull_request"


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["reset", "lost"])
def test_a_lost_answer_does_not_open_two(hub: LocalHub, push: Push, kind: str) -> None:
    hub.fail("commit", kind)
    assert push(create_pr=True)["state"] == "pull_request"
    assert len(hub.repositories["org/tiny"].pull_requests) == 1


def test_a_description_that_could_not_be_completed_is_on_the_next_run(hub: LocalHub, push: Push) -> None:
    fault = hub.fail("edit-comment", "status", status=403)
    assert push(create_pr=True)["state"] == "pull_request"
    assert fault.met == 1
    assert "the description of pull request 1 could not be updated" in push.notes[-1]
    push(create_pr=True)
    request = hub.repositories["org/tiny"].pull_request(1)
    assert "refs/pr/1" in request.comments[0].content


# Nothing to do.


def test_an_export_that_is_there_is_not_made_again(hub: LocalHub, push: Push) -> None:
    push()
    found = push.answered()
    assert found is not None
    check_manifest(found)
    assert found["publication"]["state"] == "nothing_to_do"
    assert found["publication"]["commit"] == hub.repositories["org/tiny"].head()


def test_an_edited_card_changes_nothing(hub: LocalHub, push: Push) -> None:
    push()
    hub.change("org/tiny", {"README.md": b"# Mine\n", "notes.txt": b"x"})
    assert push.answered() is not None


@pytest.mark.thorough
@pytest.mark.parametrize(
    "path",
    [
        "config.json",
        "model.safetensors",
        "vocab.txt",
        "generation_config.json",
        "onnx/model.onnx",
        "torchscript/model.pt",
    ],
)
def test_a_file_that_changed_is_noticed(hub: LocalHub, push: Push, path: str) -> None:
    push()
    hub.change("org/tiny", {path: b"changed"})
    assert push.answered() is None
    assert "holds an export, but" in push.notes[-1]


def test_a_file_that_is_missing_is_noticed(hub: LocalHub, push: Push) -> None:
    push()
    hub.change("org/tiny", {"torchscript/model.pt": None})
    assert push.answered() is None
    assert "torchscript/model.pt is missing" in push.notes[-1]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("verdict", "failed"),
        ("schema_version", 0),
        ("producer", {"name": "hfexport", "version": "0.0.0"}),
        ("artifacts", []),
        ("source", None),
        ("inputs", "x"),
    ],
)
def test_a_manifest_that_says_otherwise_is_no_answer(hub: LocalHub, push: Push, key: str, value: Any) -> None:
    push()
    manifest = json.loads(hub.read("org/tiny", "hfexport.json"))
    hub.change("org/tiny", {"hfexport.json": json.dumps({**manifest, key: value}).encode()})
    assert push.answered() is None


@pytest.mark.thorough
@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_a_manifest_that_is_none_is_no_answer(hub: LocalHub, push: Push, content: bytes) -> None:
    hub.change("org/tiny", {"hfexport.json": content})
    assert push.answered() is None
    push.source = source_of(hub)
    assert push()["state"] == "committed"


def test_other_versions_and_inputs_are_no_answer(hub: LocalHub, push: Push) -> None:
    push()
    assert push.answered(formats=("onnx",)) is None
    assert "formats" in push.notes[-1]
    assert push.answered(formats=("torchscript", "onnx")) is not None
    manifest = json.loads(hub.read("org/tiny", "hfexport.json"))
    manifest["versions"]["onnx"] = "1.0"
    hub.change("org/tiny", {"hfexport.json": json.dumps(manifest).encode()})
    assert push.answered() is None
    assert "another onnx" in push.notes[-1]


def test_an_open_pull_request_is_an_answer_too(hub: LocalHub, push: Push) -> None:
    push(create_pr=True)
    found = push.answered(create_pr=True)
    assert found is not None
    assert found["publication"]["pull_request_url"].endswith("/1")
    assert push.answered() is None
    hub.repositories["org/tiny"].merge(1)
    assert push.answered() is not None


def test_a_subfolder_is_published_where_it_lies(hub: LocalHub, push: Push, files: dict[str, bytes]) -> None:
    hub.add("org/parts", {f"encoder/{path}": content for path, content in files.items()})
    push.source = source_of(hub, "org/parts", subfolder="encoder")
    assert push(repository="org/parts")["state"] == "committed"
    assert hub.read("org/parts", "encoder/onnx/model.onnx") == ARTIFACTS["onnx/model.onnx"]
    assert "encoder/hfexport.json" in hub.repositories["org/parts"].files()
    assert 'f"{folder}/encoder/onnx/model.onnx"' in hub.read("org/parts", "README.md").decode()


def test_a_folder_is_published_beside_the_same_weights(hub: LocalHub, push: Push, checkpoint: Path) -> None:
    push.source = Source(str(checkpoint), checkpoint)
    publication = push()
    assert publication["state"] == "committed"
    assert "base_model" not in hub.read("org/tiny", "README.md").decode()


def test_a_folder_that_was_published_is_known_by_its_files(
    hub: LocalHub, push: Push, checkpoint: Path, tmp_path: Path
) -> None:
    push.source = Source(str(checkpoint), checkpoint)
    push()
    wanted = new_manifest(recorded(Inputs()), "2026-02-02T00:00:00+00:00")
    assert (
        publisher_of(hub, push.source, TOKEN).answered(
            wanted, deciding_inputs(), describe_source(push.source), lambda: None
        )
        is not None
    )
    changed = Path(shutil.copytree(checkpoint, tmp_path / "changed"))
    (changed / "vocab.txt").write_text("other words")
    source = Source(str(changed), changed)
    publisher = publisher_of(hub, source, TOKEN, note=push.notes.append)
    assert publisher.answered(wanted, deciding_inputs(), describe_source(source), lambda: None) is None
    assert "files copied along have changed" in push.notes[-1]
