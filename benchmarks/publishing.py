"""Publish to the Hub of tests/support/local_hub while injecting faults, and write the results into docs/publishing.md.

    make publishing-figures                          # about six minutes on two cores
    make publishing-figures ARGS="--only faults"     # only the table of faults, which does not depend on speed

Every row of that table is a separate run of the command line that publishes a tiny model. The times for an export that is
already published are measured with a real model, all-MiniLM-L6-v2, which `make export` installs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tests")]

from example import EXAMPLE_MODEL  # noqa: E402
from local_hub.server import LocalHub  # noqa: E402 lies in tests
from local_hub.store import User  # noqa: E402
from tiny import make_checkpoint  # noqa: E402

DOCUMENT = ROOT / "docs" / "publishing.md"
TOKEN = "hf_for_the_local_hub"
PUSH = ("--model", "org/model", "--hub-token", TOKEN)
OWN = "org/model"
NEW = "org/new"
QUICK = ("--formats", "torchscript", "--validate", "off", "--publish-unvalidated")
REPEATS = 3


@dataclass(frozen=True)
class Case:
    """One injected fault.

    Attributes:
        what: description for the table.
        faults: faults of the Hub: call, kind and options.
        meanwhile: files of another user's commit, made when the push begins.
        signal: signal to send when the first fault, which holds its call, is reached.
        options: further options of the command line.
        to: repository to push to.
    """

    what: str
    faults: Sequence[tuple[str, str, Mapping[str, Any]]] = ()
    meanwhile: Mapping[str, bytes] = field(default_factory=dict)
    signal: signal.Signals | None = None
    options: tuple[str, ...] = ()
    to: str = OWN


CASES = (
    Case("none"),
    Case(
        "429 with `Retry-After`, at every call of the push once",
        [
            (call, "status", {"status": 429, "headers": {"Retry-After": "1"}})
            for call in ("preupload", "lfs-batch", "lfs-upload", "commit")
        ],
    ),
    Case("503 at the commit, twice", [("commit", "status", {"status": 503, "times": 2})]),
    Case("503 at the commit, for good", [("commit", "status", {"status": 503, "times": 10_000})]),
    Case("connection reset in the middle of an upload", [("lfs-upload", "reset", {})]),
    Case("connection reset in the middle of the commit", [("commit", "reset", {})]),
    Case("the commit is made, its answer is lost", [("commit", "lost", {})]),
    Case("the pull request is opened, the answer is lost", [("commit", "lost", {})], options=("--create-pr",)),
    Case(
        "every answer takes three seconds",
        [
            (call, "slow", {"seconds": 3.0, "times": 10_000})
            for call in ("info", "tree", "resolve", "preupload", "lfs-batch", "lfs-upload", "commit")
        ],
    ),
    Case("a download of the checkpoint ends early", [("resolve", "truncated", {"times": 2})]),
    Case("a download arrives with a wrong byte", [("resolve", "wrong-bytes", {})]),
    Case("downloads always arrive with a wrong byte", [("resolve", "wrong-bytes", {"times": 10_000})]),
    Case("the branch moved, other files changed (412)", meanwhile={"notes.txt": b"by a colleague"}),
    Case("the branch moved, the weights changed (412)", meanwhile={"model.safetensors": b"trained on"}),
    Case("the commit to a new repository is refused", [("commit", "status", {"status": 403})], to=NEW),
    Case("the commit to a new branch is refused", [("commit", "status", {"status": 403})], options=("--branch", "new")),
    Case("the token may not write", [("preupload", "status", {"status": 403})]),
    Case("SIGTERM in the middle of an upload", [("lfs-upload", "held", {})], signal=signal.SIGTERM),
    Case("SIGTERM in the middle of a download", [("resolve", "stalled", {})], signal=signal.SIGTERM),
    Case(
        "SIGTERM in the middle of an upload to a new repository",
        [("lfs-upload", "held", {})],
        signal=signal.SIGTERM,
        to=NEW,
    ),
    Case(
        "SIGKILL in the middle of an upload to a new repository",
        [("lfs-upload", "held", {})],
        signal=signal.SIGKILL,
        to=NEW,
    ),
    Case("SIGKILL in the middle of an upload", [("lfs-upload", "held", {})], signal=signal.SIGKILL),
    Case("SIGKILL after the commit was sent", [("commit", "held", {"done": True})], signal=signal.SIGKILL),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the tables of docs/publishing.md.")
    parser.add_argument("--only", choices=("faults", "figures"), help="write only one of the tables")
    only = parser.parse_args().only
    text = DOCUMENT.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="hfexport-publishing-") as name:
        folder = Path(name)
        if only != "figures":
            text = replaced(text, "faults", fault_table(folder))
        if only != "faults":
            text = replaced(text, "figures", nothing_to_do(folder / "figures"))
    DOCUMENT.write_text(text, encoding="utf-8")


def fault_table(folder: Path) -> str:
    """Run all cases and return their table."""
    tiny = make_checkpoint(folder / "tiny", "bert", "sequence-classification", tokenizer=True)
    lines = ["| disturbance | exit code | the repository afterwards |", "|---|---|---|"]
    for number, case in enumerate(CASES):
        row = disturbed(case, tiny, folder / str(number))
        print(row, flush=True)
        lines.append(row)
    return "\n".join(lines)


def disturbed(case: Case, checkpoint: Path, folder: Path) -> str:
    """Publish under one fault and return a row of the table."""
    folder.mkdir()
    with LocalHub() as hub:
        hub.tokens = {TOKEN: User("org")}
        files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
        before = hub.add(OWN, files).head()
        faults = [hub.fail(call, kind, **options) for call, kind, options in case.faults]
        if case.meanwhile:
            hub.fail("preupload", "before", action=lambda: hub.change(OWN, dict(case.meanwhile)))
        process = start((*PUSH, "--push-to-hub", case.to, *QUICK, *case.options), hub, folder)
        if case.signal is not None:
            assert faults[0].held.reached.wait(300), f"{case.what}: the fault was never reached"
            process.send_signal(case.signal)
        code = process.wait(600)
        state = described(hub, before, case)  # the run no longer waits for calls that the Hub still handles
    shown = str(code) if code >= 0 else f"killed by {signal.Signals(-code).name}"
    return f"| {case.what} | {shown} | {state} |"


def described(hub: LocalHub, before: str, case: Case) -> str:
    """Describe the repository's state: unchanged, or with a complete export, and with how many commits."""
    if case.to == NEW:
        assert hub.repositories[OWN].head() == before
        return "there is none" if NEW not in hub.repositories else "new, and empty"
    repository = hub.repositories[OWN]
    if "--branch" in case.options:
        assert repository.refs == {"main": before}, case.what
        return "as it was"
    if "--create-pr" in case.options:
        count = len(repository.pull_requests)
        whole = all(complete(hub, request.ref) for request in repository.pull_requests)
        assert whole, case.what
        assert count <= 1, case.what
        return "as it was, and one pull request with the complete export" if count else "as it was"
    others = 1 if case.meanwhile else 0
    made = len(repository.history()) - 1 - others
    assert made in (0, 1), f"{case.what}: {made} commits"
    if made == 0:
        assert "hfexport.json" not in repository.files(), case.what
        return "as the colleague left it" if others else "as it was"
    assert complete(hub, "main"), case.what
    assert before in {commit.sha for commit in repository.history()}, case.what
    return "complete, one commit" + (" on top of the other" if others else "")


def complete(hub: LocalHub, ref: str) -> bool:
    """Return whether every file that the manifest lists is in the repository with its hash."""
    held = hub.repositories[OWN].files(ref)
    if "hfexport.json" not in held:
        return False
    manifest = json.loads(hub.read(OWN, "hfexport.json", ref))
    listed = [*manifest["files"], *(file for artifact in manifest["artifacts"] for file in artifact["files"])]
    return all(held.get(file["path"]) == file["sha256"] for file in listed)


def nothing_to_do(folder: Path) -> str:
    """Publish a real model, then repeat the same run a few times; return the times as a table."""
    folder.mkdir()
    with LocalHub() as hub:
        hub.tokens = {TOKEN: User("org")}
        hub.add(OWN, {path.name: path.read_bytes() for path in EXAMPLE_MODEL.iterdir() if path.is_file()})
        push = (*PUSH, "--push-to-hub", OWN)
        full = timed(lambda: start(push, hub, folder))
        calls = len(hub.calls)
        again = statistics.median(timed(lambda: start(push, hub, folder)) for _ in range(REPEATS))
        per_run = (len(hub.calls) - calls) // REPEATS
    return "\n".join(
        [
            "| all-MiniLM-L6-v2, ONNX and TorchScript, strict | seconds |",
            "|---|---|",
            f"| a full run: export, validation, push | {full:.1f} |",
            f"| the same again, median of {REPEATS}: nothing to do ({per_run} calls to the Hub) | {again:.1f} |",
        ]
    )


def timed(begin: Callable[[], subprocess.Popen[bytes]]) -> float:
    start_s = time.perf_counter()
    assert begin().wait(1800) == 0
    return time.perf_counter() - start_s


def start(arguments: Sequence[str], hub: LocalHub, folder: Path) -> subprocess.Popen[bytes]:
    """Start the command line in `folder`, without this machine's own settings for the Hub."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "GITHUB_"))}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_XET": "1"}
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "hfexport", *arguments], cwd=folder, env=environment, stdout=log, stderr=log
        )


def replaced(text: str, name: str, content: str) -> str:
    """Return `text` with `content` between the markers of that name."""
    opening, closing = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    before, _, rest = text.partition(opening)
    assert closing in rest, f"docs/publishing.md has no {opening} and {closing}"
    return f"{before}{opening}\n{content}\n{closing}{rest.partition(closing)[2]}"


if __name__ == "__main__":
    main()
