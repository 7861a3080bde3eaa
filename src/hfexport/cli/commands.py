"""Commands of `hfexport`: their arguments, options and help texts."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hfexport.errors import InputsError
from hfexport.run.inputs import InputField, Syntax, input_fields, parsers

__all__ = ["COMMANDS", "EXPORT", "Command", "split_command"]


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: word on the command line.
        summary: one sentence.
        argument: positional argument as shown in help.
        argument_help: description of that argument.
        syntax: allowed arguments and options.
        meanings: descriptions of inputs whose meaning differs from that for an export.
        examples: command lines, each with a description.
    """

    name: str
    summary: str
    argument: str
    argument_help: str
    syntax: Syntax
    examples: Mapping[str, str]
    meanings: Mapping[str, str] = field(default_factory=dict)

    @property
    def takes(self) -> frozenset[str]:
        """Return the names of the inputs that are options of this command."""
        if self.syntax.inputs is not None:
            return self.syntax.inputs
        return frozenset(part.name for part in input_fields())


EXPORT: Final = Command(
    "export",
    "Export a checkpoint and validate each artifact. The command if none is named.",
    "[MODEL]",
    "The same as --model: a checkpoint folder, or owner/name on the Hub.",
    Syntax("hfexport export", None, "model"),
    {
        "hfexport path/to/checkpoint": "ONNX and TorchScript in hfexport-out/",
        "hfexport owner/name --formats onnx --opset 18 --output out": "a model on the Hub, ONNX alone",
        "hfexport owner/name --push-to-hub --create-pr": "publish to the model's own repository as a pull request",
    },
)

VERIFY: Final = Command(
    "verify",
    "Check an export: hash its files, and run each artifact against its source again.",
    "EXPORT",
    "Output folder of an export, or owner/name on the Hub.",
    Syntax(
        "hfexport verify",
        frozenset(
            (
                *("model", "revision", "subfolder", "base-model", "hub-token", "export-config", "trust-remote-code"),
                *("atol", "rtol", "validation-timeout", "neuron-python", "eval-data", "min-similarity", "benchmark"),
            )
        ),
        "EXPORT",
        "verify needs what to verify: an output folder, or owner/name on the Hub",
    ),
    {
        "hfexport verify hfexport-out --model path/to/checkpoint": "an output folder, with its source at another place",
        "hfexport verify owner/name": "an export on the Hub",
        "hfexport verify hfexport-out --benchmark": "measure the speed of its files on this machine, too",
        "hfexport verify owner/name --revision refs/pr/3": "one in a pull request, before it is merged",
    },
    {
        "model": "Source checkpoint, a folder or owner/name; if unset, the one that the manifest names.",
        "revision": "Branch, tag, commit or refs/pr/N of an export on the Hub.",
        "subfolder": "Folder inside the export's repository that holds it.",
        "benchmark": "Also measure the latency of the model and of every file on this machine.",
    },
)

_JOB_OPTIONS: Final = (
    InputField("flavor", "cpu-xl", "Hardware of the job, as `hf jobs hardware` lists it.", parsers.slug),
    InputField("timeout", "6h", "Time limit of the job: s, m, h or d.", parsers.duration),
    InputField("image", "", "Image of the job; if unset, the one of this version.", parsers.image),
    InputField("namespace", "", "User or organisation that pays; if unset, the token's user.", parsers.slug),
)

_FLEET_MEANINGS: Final = {
    "output": "Folder in which every model without an output of its own gets a folder.",
    "hub-token": "Token for the Hub; if unset, HF_TOKEN, a trusted publisher or a stored login.",
}

PLAN: Final = Command(
    "plan",
    "Say what a fleet file would export: largest weights first, without exports that are current.",
    "FILE",
    "Fleet file such as models.yaml (docs/fleet.md).",
    Syntax(
        "hfexport plan",
        frozenset(("output", "hub-token")),
        "FILE",
        "plan needs a fleet file, such as models.yaml",
        (
            InputField("matrix", "false", "Print the JSON of a workflow's matrix.", parsers.boolean),
            InputField("submit", "false", "Start a Hugging Face Job for each model (see submit).", parsers.boolean),
            *_JOB_OPTIONS,
        ),
    ),
    {
        "hfexport plan models.yaml": "a table of what would run; the reasons for what would not are on stderr",
        "hfexport plan models.yaml --matrix": "strategy.matrix for a workflow, at most 256 jobs",
    },
    _FLEET_MEANINGS,
)

FLEET: Final = Command(
    "fleet",
    "Export every model of a fleet file on this machine; a run that was ended continues where it was.",
    "FILE",
    "Fleet file such as models.yaml (docs/fleet.md).",
    Syntax(
        "hfexport fleet",
        frozenset(("output", "hub-token")),
        "FILE",
        "fleet needs a fleet file, such as models.yaml",
        (
            InputField("jobs", "1", "Largest number of models at the same time.", parsers.positive_integer),
            InputField(
                "retries",
                "2",
                "Further attempts of a model after a failure of the network or the machine; never after a failed "
                "validation.",
                parsers.whole_number,
            ),
        ),
    ),
    {
        "hfexport fleet models.yaml --jobs 4": "as many models at once as fit into the memory, at most 4",
    },
    _FLEET_MEANINGS,
)

GATHER: Final = Command(
    "gather",
    "Gather the manifests of many exports into one table; exit code 6 if any artifact failed its validation.",
    "FOLDER...",
    "Folders that hold exports, at any depth.",
    Syntax(
        "hfexport gather",
        frozenset(),
        "FOLDER",
        "gather needs at least one folder that holds exports",
        (
            InputField(
                "output",
                "",
                "File to write instead of stdout: Markdown, .json, or .html for the report with charts.",
                parsers.path,
            ),
        ),
        many=True,
    ),
    {
        "hfexport gather hfexport-out": "a Markdown table of all exports below the folder",
        "hfexport gather part-1 part-2 --output fleet.html": "the report",
        "hfexport gather hfexport-out --json": "every manifest, in one JSON document",
    },
)

SUBMIT: Final = Command(
    "submit",
    "Export on the Hub's hardware: run hfexport's image as a Hugging Face Job, and follow it to its end.",
    "[MODEL]",
    "The same as --model: owner/name on the Hub.",
    Syntax(
        "hfexport submit",
        None,
        "model",
        "",
        (
            *_JOB_OPTIONS,
            InputField("detach", "false", "Start the job and return.", parsers.boolean),
            InputField("schedule", "", "Run it regularly: @daily, @weekly, …, or a cron expression.", parsers.schedule),
            InputField(
                "webhook",
                "false",
                "Also run it at every change of the model's repository.",
                parsers.boolean,
            ),
        ),
    ),
    {
        "hfexport submit owner/name --flavor cpu-xl --push-to-hub --create-pr": "log and exit code as of a local run",
        "hfexport submit owner/name --push-to-hub --schedule @daily": "exports what changed, by itself",
    },
)

JOBS: Final = Command(
    "jobs",
    "List the jobs that submit started, or follow or cancel one.",
    "[JOB]",
    "Id of a job to follow to its end; without it, all are listed.",
    Syntax(
        "hfexport jobs",
        frozenset(("hub-token",)),
        "JOB",
        "",
        (_JOB_OPTIONS[-1], InputField("cancel", "false", "Cancel the job.", parsers.boolean)),
    ),
    {
        "hfexport jobs": "all of them, newest first",
        "hfexport jobs 6a1f…": "its log from the beginning, and its exit code",
        "hfexport jobs 6a1f… --cancel": "cancel it",
    },
    _FLEET_MEANINGS,
)

COMMANDS: Final[Mapping[str, Command]] = {
    command.name: command for command in (EXPORT, VERIFY, PLAN, FLEET, GATHER, SUBMIT, JOBS)
}


def split_command(words: Sequence[str]) -> tuple[Command, list[str]]:
    """Split a command line into command and arguments. Without the name of a command, it is `export`.

    Raises:
        InputsError: the first word is a misspelt command.
    """
    first = words[0] if words else ""
    if first in COMMANDS:
        return COMMANDS[first], list(words[1:])
    close = difflib.get_close_matches(first, [*COMMANDS, "completion"], n=1, cutoff=0.75)
    if close and "/" not in first and not Path(first).exists():
        raise InputsError([f"{first!r} is neither a command nor a folder: did you mean hfexport {close[0]}?"])
    return EXPORT, list(words)
