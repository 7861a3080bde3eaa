"""Entry point of the command line and the action: reads `argv` and the environment, and returns exit codes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, NoReturn

from hfexport import __version__
from hfexport._internal.blame import explain
from hfexport._internal.confined import guard_memory, hide_arguments
from hfexport._internal.process import collect_rarely, end_process
from hfexport.backends.formats import FORMATS
from hfexport.cli import fleet, jobs
from hfexport.cli.commands import COMMANDS, split_command
from hfexport.cli.completion import VARIABLE, answer, print_script
from hfexport.cli.console import Console
from hfexport.cli.help import command_help, overview
from hfexport.errors import HfexportError, InputsError, InternalError
from hfexport.hub.client import configure_process
from hfexport.hub.credentials import TOKEN_VARIABLES
from hfexport.run.inputs import Inputs, Parsed, given_secrets, parse_inputs
from hfexport.run.report import write_report

if TYPE_CHECKING:
    from hfexport.manifest.model import Manifest

__all__ = ["command", "main"]

FLEET_COMMANDS: Final[Mapping[str, Callable[[Parsed, Console, Mapping[str, str]], int]]] = {
    "plan": fleet.plan,
    "fleet": fleet.run_fleet,
    "gather": fleet.gather_manifests,
    "submit": jobs.submit,
    "jobs": jobs.manage,
}


class _Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C so that everything is cleaned up."""


def command() -> NoReturn:
    """Run the installed command: `main` in a process of its own."""
    collect_rarely()
    _open_standard_streams()
    # Before other programs are started: other processes cannot read the token.
    guard_memory()
    hide_arguments(given_secrets(sys.argv[1:], {}))
    exit_code = main()
    if os.environ.get(jobs.IN_A_JOB):
        from hfexport.hub.jobs import EXIT_CODE_LINE

        print(f"{EXIT_CODE_LINE}{exit_code}", flush=True)
    end_process(exit_code)


def _open_standard_streams() -> None:
    """Reopen standard streams that were closed before the start, so that printing does not fail."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115


def main(argv: Sequence[str] | None = None) -> int:
    """Run hfexport; returns the exit code."""
    # As early as possible: the kernel does not deliver a signal without handler to a container's first process.
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return _run(sys.argv[1:] if argv is None else list(argv), dict(os.environ))
    except _Terminated:
        return 143
    except KeyboardInterrupt:
        return 130


def _run(words: list[str], env: Mapping[str, str]) -> int:
    if instruction := env.get(VARIABLE):
        return answer(instruction)
    if (text := _asked_for(words)) is not None:
        with suppress(BrokenPipeError):  # `hfexport --help | head`
            print(text, flush=True)
        return 0
    data = "--json" in words or words[:1] in (["plan"], ["gather"], ["jobs"])
    console = Console(sys.stdout, sys.stderr, env, json_output=data, verbose="--verbose" in words)
    try:
        return _command(words, env, console)
    except Exception as raised:  # noqa: BLE001  boundary of the command line: a bug is reported as one
        return _told(raised, "hfexport", console)


def _told(raised: Exception, subject: str, console: Console) -> int:
    """Print the error for an exception; for a bug, also write a report to the working directory.

    Returns:
        Exit code.
    """
    error = explain(raised, subject)
    if isinstance(error, InternalError):
        from hfexport.manifest.entries import new_manifest

        path = write_report(error, new_manifest({}, ""), Path.cwd(), console.masked)
        how = "" if path is None else f" with the file {path}, which holds no secrets"
        error.remedy = f"{error.remedy} Please report it{how}."
    error.__cause__ = error.__cause__ or (None if raised is error else raised)
    console.error(error)
    return error.exit_code


def _command(words: list[str], env: Mapping[str, str], console: Console) -> int:
    for secret in (*given_secrets(words, env), *(env[name] for name in TOKEN_VARIABLES if env.get(name))):
        console.mask(secret)
    try:
        if words[:1] == ["completion"]:
            return print_script(words[1:])
        command, arguments = split_command(words)
        parsed = parse_inputs(arguments, env, command.syntax)
    except InputsError as error:
        console.error(error)
        return error.exit_code
    configure_process()
    as_json = "json" in parsed.flags
    if command.name == "export":
        return _export(parsed.inputs, console, env, as_json=as_json)
    if command.name == "verify":
        return _verify(parsed.positional, parsed.inputs, console, env, as_json=as_json)
    return FLEET_COMMANDS[command.name](parsed, console, env)


def _asked_for(words: Sequence[str]) -> str | None:
    """Return the help or the version text if the command line asks for it."""
    if "--help" in words or "-h" in words:
        return command_help(COMMANDS[words[0]]) if words[0] in COMMANDS else overview()
    return f"hfexport {__version__}" if "--version" in words else None


def _verify(place: str, inputs: Inputs, console: Console, env: Mapping[str, str], *, as_json: bool) -> int:
    from hfexport.manifest.entries import to_json
    from hfexport.run.verify import verify

    try:
        manifest = verify(place, inputs, console, env)
    except Exception as raised:  # noqa: BLE001  an untrusted export may raise any exception
        return _told(raised, place, console)
    if as_json:
        console.data(to_json(manifest).rstrip())
    console.note(f"verified: {place}")
    return 0


def _terminate(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise _Terminated


def _write_report(inputs: Inputs, manifest: Manifest, failure: HfexportError | None, console: Console) -> str:
    """Write the HTML report beside the manifest if it is requested; return its path, or an empty text."""
    if not inputs.report or isinstance(failure, InputsError):  # then there is no folder of this run
        return ""
    from hfexport.manifest.report import REPORT_PAGE, write_report_page

    try:
        return str(write_report_page([manifest], Path(inputs.output, REPORT_PAGE)))
    except OSError as error:
        console.warn(f"No report could be written to {inputs.output!r}: {error.strerror}")
        return ""


def _export(inputs: Inputs, console: Console, env: Mapping[str, str], *, as_json: bool) -> int:
    from hfexport.run.pipeline import Failed, run

    try:
        manifest = run(inputs, console, env)
        failure: HfexportError | None = None
    except Failed as failed:
        manifest, failure = failed.manifest, failed.error
    from hfexport.manifest.entries import MANIFEST_FILE, published_url, to_json
    from hfexport.manifest.speed import speed_tables
    from hfexport.manifest.summary import TABLE_COLUMNS, job_summary, table_rows
    from hfexport.manifest.variants import VARIANT_COLUMNS, variant_rows

    publication = manifest["publication"]
    state = "" if publication is None else publication["state"]
    here = manifest["verdict"] in ("passed", "incomplete", "not_validated") and state != "nothing_to_do"
    paths = {artifact["format"]: artifact["path"] for artifact in manifest["artifacts"]} if here else {}
    differences = [artifact["validation"]["max_abs_diff"] for artifact in manifest["artifacts"]]
    console.write_outputs(
        {
            "manifest": str(Path(inputs.output, MANIFEST_FILE)),
            "output": inputs.output,
            "report": _write_report(inputs, manifest, failure, console),
            **{name: str(Path(inputs.output, paths[name])) if name in paths else "" for name in FORMATS},
            "max-abs-diff": str(max((value for value in differences if isinstance(value, float)), default="")),
            "verdict": manifest["verdict"],
            "published": state,
            "commit-url": (publication and publication["commit_url"]) or "",
            "pr-url": (publication and publication["pull_request_url"]) or "",
        }
    )
    console.append_summary(job_summary(manifest))
    if manifest["artifacts"]:
        console.table(TABLE_COLUMNS, table_rows(manifest))
    if manifest.get("variants"):
        console.table(VARIANT_COLUMNS, variant_rows(manifest))
    for table in speed_tables(manifest.get("benchmark")):
        console.table(table.columns, table.rows)
    if as_json:
        console.data(to_json(manifest).rstrip())
    if failure is not None:
        console.error(failure)
        return failure.exit_code
    where = published_url(manifest) or Path(inputs.output, MANIFEST_FILE)
    console.note(f"{manifest['verdict'].replace('_', ' ')}: {where}")
    return 0
