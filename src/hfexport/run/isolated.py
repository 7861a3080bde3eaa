"""Export and verify in a child process without tokens, network or access to the user's files.

The parent locates, downloads and publishes; it does not run code of a checkpoint or an export config, and does not
import torch. The child gets the downloaded files and an environment with allowed variables and an empty home. See
docs/architecture.md.
"""

from __future__ import annotations

import json
import os
import site
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, cast

from hfexport._internal import workers
from hfexport._internal.blame import explain
from hfexport._internal.confined import DENIED, confine, secret_places
from hfexport._internal.forkserver import FORK_SERVERS, WARM_SERVERS
from hfexport._internal.messages import plain, read
from hfexport._internal.standby import Standbys
from hfexport.backends.formats import FORMATS
from hfexport.errors import ExportError, HfexportError, InternalError, ValidationError, first_line
from hfexport.hub.source import Fetched
from hfexport.run.inputs import Inputs
from hfexport.run.messages import ExportSubject, IsolatedJob, VerifySubject
from hfexport.run.relay import Reporter, relay

if TYPE_CHECKING:
    from hfexport.manifest.model import IsolationEntry, Manifest
    from hfexport.run.observer import Observer
    from hfexport.run.pipeline import Run

__all__ = ["export", "forks_reference", "run", "runs_foreign_code", "verify"]

_FROM_THE_CHILD: Final = (
    *("source", "task", "interface", "dtype", "stages", "artifacts", "variants", "files", "verdict", "benchmark"),
    "isolation",
)
"""Keys of the manifest that the child sets; the parent sets all others."""


def runs_foreign_code(inputs: Inputs) -> bool:
    """Return whether the run executes code of the checkpoint or of a user's file."""
    return inputs.trust_remote_code or inputs.export_config is not None


def forks_reference(inputs: Inputs) -> bool:
    """Return whether an exporting process forks the reference once it has imported torch.

    With a cache the exporting process may do without torch. Foreign code must not run in it before the fork.
    """
    return inputs.validate == "strict" and inputs.cache is None and not runs_foreign_code(inputs)


def export(work: Run, fetched: Fetched) -> Path:
    """Export and validate a checkpoint in a child process.

    Args:
        work: the run; its manifest gets the child's results, also on failure.
        fetched: downloaded checkpoint.

    Returns:
        Folder that is ready to be installed; it holds files and folders, but no links.

    Raises:
        HfexportError: an error that the child raised; `ExportError` if it was killed.
    """
    if _stays_here(work.inputs, work.env):
        return work.export_and_validate(fetched)
    subject = ExportSubject(manifest=work.manifest)
    try:
        _in_child(subject, fetched, work.inputs, work.staging, work.observer, work.env)
    finally:
        _take_over(work.staging, work.manifest)
    ready = work.staging / "ready"
    _hold_files(ready, work.manifest)
    return ready


def verify(
    export: VerifySubject,
    fetched: Fetched,
    inputs: Inputs,
    staging: Path,
    observer: Observer,
    env: Mapping[str, str],
) -> None:
    """Run every artifact of an export against its model in a child process.

    Args:
        export: the export to verify.
        fetched: source checkpoint.
        inputs: see `hfexport.run.verify.verify`.
        staging: folder for unfinished files.
        observer: receives progress.
        env: environment; the child gets an allow-list of it.

    Raises:
        HfexportError: see `hfexport.run.verify.verify`.
    """
    if _stays_here(inputs, env):
        from hfexport.run.verify import Export, run_again

        run_again(Export.from_message(export), fetched, inputs, observer, env, staging)
        return
    _in_child(export, fetched, inputs, staging, observer, env)


def run(values: Mapping[str, Any]) -> dict[str, Any]:
    """Run a job of the parent in the child.

    Args:
        values: those of an `IsolatedJob`.
    """
    job = read(values, IsolatedJob)
    subject = job.subject.name if isinstance(job.subject, VerifySubject) else job.inputs.model
    try:
        return _work(job)
    except HfexportError:
        raise
    except Exception as error:
        found = explain(error, subject)
        if isinstance(found, InternalError):
            raise  # with data for a report, see `hfexport._internal.answers`
        raise found from error


def _work(job: IsolatedJob) -> dict[str, Any]:
    os.chdir(job.directory)
    isolation = _isolate(job)
    fetched = Fetched.from_message(job.fetched)
    observer = Reporter(Path(job.events))
    with Standbys() as standbys:
        validates = isinstance(job.subject, VerifySubject) or job.inputs.validate == "strict"
        if validates and not (isinstance(job.subject, ExportSubject) and forks_reference(job.inputs)):
            from hfexport.validation.reference.start import prepare_reference

            # Before this process imports torch, so that both import it at the same time.
            prepare_reference(standbys, fetched.folder, os.environ)
        return _make(job, fetched, observer, standbys, isolation)


def _make(
    job: IsolatedJob,
    fetched: Fetched,
    observer: Observer,
    standbys: Standbys,
    isolation: dict[str, str],
) -> dict[str, Any]:
    """Export or verify in this process, which is isolated by now."""
    staging, inputs = Path(job.staging), job.inputs
    if isinstance(job.subject, VerifySubject):
        from hfexport.run.verify import Export, run_again

        run_again(Export.from_message(job.subject), fetched, inputs, observer, os.environ, staging, standbys)
        return {}
    from hfexport.run.pipeline import Run

    manifest = job.subject.manifest
    manifest["isolation"] = cast("IsolationEntry", isolation)
    if runs_foreign_code(inputs):
        for reached in (name for name, how in isolation.items() if how != DENIED and not inputs.allow_network):
            observer.warn(f"Code that is not hfexport's is run with {reached} {isolation[reached]}.")
    work = Run(inputs, observer, os.environ, staging, manifest, standbys=standbys)
    try:
        work.export_and_validate(fetched)
    finally:
        (staging / "child-manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return {}


def _stays_here(inputs: Inputs, env: Mapping[str, str]) -> bool:
    """Return whether to export in this process: only if it has set up fork servers and runs no foreign code."""
    return FORK_SERVERS in env and not runs_foreign_code(inputs)


def _in_child(
    subject: ExportSubject | VerifySubject,
    fetched: Fetched,
    inputs: Inputs,
    staging: Path,
    observer: Observer,
    env: Mapping[str, str],
) -> None:
    folder = staging.resolve() / "child"
    folder.mkdir(parents=True)
    events = folder / "events.jsonl"
    job = IsolatedJob(
        subject=subject,
        inputs=replace(inputs, hub_token=None),
        fetched=fetched.to_message(),
        staging=str(staging.resolve()),
        directory=str(Path.cwd()),
        hidden=tuple(str(path) for path in secret_places(env)),
        events=str(events),
    )
    name = "the exporting process" if isinstance(subject, ExportSubject) else "the verifying process"
    environment = _environment(env, folder)
    # Code of a checkpoint gets an interpreter of its own, whose modules were imported with its own environment.
    servers = "" if runs_foreign_code(inputs) else env.get(WARM_SERVERS, "")
    with workers.start(
        __name__,
        plain(job),
        name=name,
        folder=folder,
        env=environment,
        failure=ExportError,
        kind="isolated" if servers else "",
        servers=servers,
    ) as child:
        relay(child, events, observer)
        child.result()


def _environment(env: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the child's environment: allowed variables, an empty home, a temporary folder, and the Hub's cache."""
    kept = workers.child_environment({name: value for name, value in env.items() if name != FORK_SERVERS})
    home, temporary = folder / "home", folder / "tmp"
    home.mkdir()
    temporary.mkdir()
    cache = env.get("HF_HUB_CACHE") or str(_hub_home(env) / "hub")
    return {
        **kept,
        "TMPDIR": str(temporary),
        "TEMP": str(temporary),
        "TMP": str(temporary),
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "HF_HOME": str(home / ".cache" / "huggingface"),
        "HF_HUB_CACHE": cache,
        "HF_MODULES_CACHE": str(folder / "modules"),
        "PYTHONUSERBASE": env.get("PYTHONUSERBASE") or site.getuserbase(),
    }


def _hub_home(env: Mapping[str, str]) -> Path:
    """Return the folder of the Hub client's cache."""
    if env.get("HF_HOME"):
        return Path(env["HF_HOME"])
    return Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache", "huggingface")


def _isolate(job: IsolatedJob) -> dict[str, str]:
    """Restrict this process as far as possible while it has one thread."""
    from hfexport.backends.neuron.worker.network import NONE, leave_network

    inputs = job.inputs
    network = "as outside: the input allow-network" if inputs.allow_network else leave_network()
    writable = [Path(job.staging), *(Path(folder) for name in inputs.formats for folder in FORMATS[name].writable)]
    held = confine([Path(path) for path in job.hidden], writable, network=inputs.allow_network)
    if network == NONE:
        network = DENIED
    elif held["tcp"] == DENIED:
        network = f"TCP denied, all else {network}"
    return {"network": network, "files": held["files"], "processes": held["processes"]}


def _take_over(staging: Path, manifest: Manifest) -> None:
    """Copy the child's results to the manifest; a failed child may have written only some."""
    try:
        found = json.loads((staging / "child-manifest.json").read_bytes())
        taken = {name: found[name] for name in _FROM_THE_CHILD if name in found}
    except (OSError, ValueError, TypeError, RecursionError):
        return
    from hfexport.manifest.entries import check_manifest

    candidate = cast("Manifest", {**manifest, **taken})
    try:
        check_manifest(candidate)
    except Exception as error:
        raise ValidationError(f"the exporting process left no manifest: {first_line(error, limit=200)}") from error
    manifest.update(candidate)


def _hold_files(ready: Path, manifest: Manifest) -> None:
    """Reject links in the folder, and listed files that it lacks, before the parent reads it.

    Raises:
        ExportError: there is a link, or a listed file is missing.
    """
    present = set()
    for path in ready.rglob("*"):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise ExportError(f"{path.relative_to(ready)}: the exporting process left something that is no file")
        present.add(path.relative_to(ready).as_posix())
    from hfexport.manifest.entries import listed_files

    listed = (*(entry["path"] for entry in listed_files(manifest)), *(entry["path"] for entry in manifest["artifacts"]))
    for name in (PurePosixPath(path).as_posix() for path in listed):
        if name not in present:
            raise ExportError(f"{name}: is listed, but the exporting process did not make it")
