"""Commands for many models: `plan`, `fleet` and `gather`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hfexport._internal.sizes import size_text
from hfexport.cli.console import Console
from hfexport.cli.jobs import submit_fleet
from hfexport.errors import InputsError
from hfexport.run.inputs import Parsed

if TYPE_CHECKING:
    from hfexport.run.fleet.plan import Planned
    from hfexport.run.fleet.schedule import Outcome

__all__ = ["gather_manifests", "plan", "run_fleet"]

CACHE: Final = "templates"
"""Folder below the output folder in which models share the templates of their graphs."""

_OWN_VARIABLES: Final = ("GITHUB_ACTIONS", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "RUNNER_DEBUG")
"""Variables of the runner that belong to this process; the output of a model's process goes to a file."""


def plan(parsed: Parsed, console: Console, env: Mapping[str, str]) -> int:
    """Print what a fleet would export, or the matrix of its jobs."""
    from hfexport.run.fleet.plan import make_plan, matrix

    if parsed.own["matrix"] and parsed.own["submit"]:
        raise InputsError(["--matrix and --submit contradict each other: give one of them"])
    made = make_plan(Path(parsed.positional), parsed.inputs, console, env)
    if parsed.own["submit"]:
        return submit_fleet(made.todo, parsed, console, env)
    if parsed.own["matrix"]:
        text = json.dumps(matrix(made.todo), ensure_ascii=False)
        console.write_outputs({"matrix": text, "count": str(len(made.todo))})
        console.data(text)
    elif "json" in parsed.flags:
        todo, current = ([one.to_dict() for one in group] for group in (made.todo, made.current))
        console.data(json.dumps({"todo": todo, "current": current}, ensure_ascii=False, indent=2))
    elif made.todo:
        rows = [
            [
                one.member.name,
                size_text(one.found.weights_bytes) if one.found.weights_bytes else "unknown",
                ", ".join(one.member.inputs.formats),
                one.member.inputs.push_to_hub or "",
                one.member.inputs.output,
            ]
            for one in made.todo
        ]
        console.data(aligned(("model", "weights", "formats", "publish to", "output"), rows))
    total = sum(one.found.weights_bytes for one in made.todo)
    console.note(f"{len(made.todo)} to export ({size_text(total)} of weights), {len(made.current)} current")
    return 0


def run_fleet(parsed: Parsed, console: Console, env: Mapping[str, str]) -> int:
    """Export every model of a fleet file; return the worst exit code."""
    from hfexport._internal.forkserver import ISOLATED, WARM_SERVERS, fork_servers
    from hfexport._internal.workers import available_cores, child_environment
    from hfexport.run.fleet.plan import make_plan
    from hfexport.run.fleet.schedule import Settings, remove_remains, run_all, worst
    from hfexport.validation.memory import available_bytes

    made = make_plan(Path(parsed.positional), parsed.inputs, console, env)
    remove_remains(made.current)
    jobs = parsed.own["jobs"]
    variables = _child_variables(env, parsed.inputs.hub_token, max(1, available_cores(env) // jobs))
    cache = str(Path(parsed.inputs.output, CACHE))
    settings = Settings(
        jobs, parsed.own["retries"], available_bytes(), variables, lambda planned: _child_command(planned, cache)
    )
    done = 0

    def told(outcome: Outcome) -> None:
        nonlocal done
        done += outcome.final
        line = f"[{done} of {len(made.todo)}] {outcome.planned.member.name}: {outcome_text(outcome)}"
        (console.warn if outcome.exit_code else console.note)(line)

    with ExitStack() as stack:
        if len(made.todo) > 1:
            servers = stack.enter_context(fork_servers(child_environment(variables), ISOLATED, private=True))
            settings = replace(settings, env={**variables, WARM_SERVERS: servers})
        outcomes = run_all(made.todo, settings, told)
    _tell_of_all((*made.todo, *made.current), parsed.inputs.output, console)
    failed = sum(outcome.exit_code != 0 for outcome in outcomes)
    console.note(f"{len(outcomes) - failed} exported, {failed} failed, {len(made.current)} were current")
    return worst([outcome.exit_code for outcome in outcomes])


def gather_manifests(parsed: Parsed, console: Console, env: Mapping[str, str]) -> int:
    """Print or write the table of all exports below some folders; return the exit code for them."""
    from hfexport.manifest.entries import to_json
    from hfexport.run.fleet.gather import exit_code, gather, markdown, to_dict, write_report

    del env
    gathered = gather([Path(name) for name in (parsed.positional, *parsed.more)])
    output = None if parsed.own["output"] is None else Path(parsed.own["output"])
    as_json = "json" in parsed.flags or (output is not None and output.suffix == ".json")
    text = console.masked(to_json(to_dict(gathered)) if as_json else markdown(gathered))
    console.append_summary(markdown(gathered))
    if output is None:
        console.data(text.rstrip())
        return exit_code(gathered)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.suffix == ".html":
            write_report(gathered, output)
        else:
            output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputsError([f"output {str(output)!r} cannot be written: {error.strerror}"]) from error
    return exit_code(gathered)


def _tell_of_all(planned: Sequence[Planned], output: str, console: Console) -> None:
    """Write the report and the job summary of a fleet, from the manifests in its output folders."""
    from hfexport.run.fleet.gather import gather, markdown, write_report

    folders = [Path(one.member.inputs.output) for one in planned]
    try:
        gathered = gather([folder for folder in folders if folder.is_dir()])
    except InputsError as error:  # a model whose process could not write a manifest
        console.warn(str(error))
        return
    if not gathered:
        return
    console.append_summary(markdown(gathered))
    Path(output).mkdir(parents=True, exist_ok=True)
    report = Path(output, "report.html")
    write_report(gathered, report)
    console.note(f"report: {report}")


def outcome_text(outcome: Outcome) -> str:
    """Return the result of one attempt in one line."""
    from hfexport.manifest.entries import published_url

    manifest = outcome.manifest
    if outcome.exit_code == 0 and manifest is not None:
        shown = published_url(manifest) or outcome.planned.member.inputs.output
        return f"{manifest['verdict'].replace('_', ' ')} after {outcome.seconds:.0f} s: {shown}"
    error = None if manifest is None else manifest["error"]
    said = " ".join((error["message"] if error else "its process was ended").split())[:300]
    cause = f", by the {outcome.failed_by}" if outcome.failed_by else ""
    after = f"; see {outcome.log}" if outcome.final else "; will be tried again"
    return f"exit code {outcome.exit_code}{cause}: {said}{after}"


def _child_variables(env: Mapping[str, str], token: str | None, cores: int) -> dict[str, str]:
    """Return the environment of each model's process: no inputs of this one but the token."""
    kept = {name: value for name, value in env.items() if not name.startswith("INPUT_") and name not in _OWN_VARIABLES}
    kept.setdefault("OMP_NUM_THREADS", str(cores))
    return kept | ({"INPUT_HUB-TOKEN": token} if token else {})


def _child_command(planned: Planned, cache: str) -> list[str]:
    """Return the command line of one model's process; models without a cache of their own share one."""
    from hfexport._internal.process import python_command

    words = [f"--{name}={text}" for name, text in planned.member.texts]
    if planned.member.inputs.cache is None:
        words.append(f"--cache={cache}")
    return python_command("hfexport.cli.child", str(os.getpid()), "export", *words)


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as text with aligned columns."""
    lines = [[" ".join(cell.split()) for cell in row] for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
