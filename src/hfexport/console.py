"""The one output sink: workflow commands on Actions, plain lines or a spinner elsewhere.

Notes go to stderr and data to stdout. On Actions notes go to stdout, where the runner looks for commands; with `--json`
stdout belongs to the manifest alone, and they go to stderr, which the runner reads as well.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from hfexport.errors import HfexportError, InputsError

__all__ = ["Console"]

MAX_SUMMARY_BYTES = 1024 * 1024


class Console:
    """Writes to the user.

    Args:
        stdout: for data.
        stderr: for notes.
        env: where `GITHUB_ACTIONS`, `GITHUB_OUTPUT` and `GITHUB_STEP_SUMMARY` are read from.
        json_output: stdout belongs to the manifest.
    """

    def __init__(self, stdout: TextIO, stderr: TextIO, env: Mapping[str, str], *, json_output: bool = False) -> None:
        self._stdout = stdout
        self._on_actions = env.get("GITHUB_ACTIONS") == "true"
        self._notes = stdout if self._on_actions and not json_output else stderr
        self._output_file = env.get("GITHUB_OUTPUT") or None
        self._summary_file = env.get("GITHUB_STEP_SUMMARY") or None
        self._secrets: list[str] = []

    def mask(self, secret: str) -> None:
        """Never print `secret` again, and have the runner hide it too."""
        for line in filter(None, (line.strip() for line in secret.splitlines())):
            if self._on_actions:
                print(f"::add-mask::{_data(line)}", file=self._notes, flush=True)
            self._secrets.append(line)

    def data(self, text: str) -> None:
        """Print what the user asked for, to stdout."""
        print(self._masked(text), file=self._stdout, flush=True)

    def note(self, text: str) -> None:
        print(self._masked(text), file=self._notes, flush=True)

    def warn(self, text: str) -> None:
        self._annotate("warning", "hfexport", text)

    def error(self, error: HfexportError) -> None:
        """Print an error with its remedy; each problem of wrong inputs is an annotation of its own."""
        problems = error.problems if isinstance(error, InputsError) else (str(error),)
        for problem in problems:
            self._annotate("error", error.title, problem)

    def _annotate(self, kind: str, title: str, text: str) -> None:
        if self._on_actions:
            print(f"::{kind} title={_property(title)}::{_data(self._masked(text))}", file=self._notes, flush=True)
        else:
            print(self._masked(f"{kind}: {text}"), file=self._notes, flush=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A group on Actions, a spinner on a terminal, a line otherwise; ends with the seconds it took."""
        start = time.perf_counter()
        if self._on_actions:
            print(f"::group::{_data(name)}", file=self._notes, flush=True)
            try:
                yield
            finally:
                print(f"{name}: {time.perf_counter() - start:.1f} s\n::endgroup::", file=self._notes, flush=True)
            return
        if self._notes.isatty():
            from rich.console import Console as RichConsole

            with RichConsole(file=self._notes).status(name):
                yield
        else:
            yield
        self.note(f"{name}: {time.perf_counter() - start:.1f} s")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table with aligned columns, among the notes."""
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        for row in (columns, *rows):
            self.note("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def write_outputs(self, outputs: Mapping[str, str]) -> None:
        """Set the action's outputs; each value between random delimiters, so that no value can end itself."""
        if self._output_file is None:
            return
        with Path(self._output_file).open("a", encoding="utf-8") as file:
            for name, value in outputs.items():
                delimiter = f"hfexport-{secrets.token_hex(16)}"
                while delimiter in value:
                    delimiter = f"hfexport-{secrets.token_hex(16)}"
                file.write(f"{name}<<{delimiter}\n{self._masked(value)}\n{delimiter}\n")

    def append_summary(self, markdown: str) -> None:
        """Add to the job summary, which holds at most 1 MiB a step."""
        if self._summary_file is None:
            return
        encoded = self._masked(markdown).encode()
        if len(encoded) > MAX_SUMMARY_BYTES - 100:
            kept = encoded[: MAX_SUMMARY_BYTES - 100].decode(errors="ignore")
            encoded = (kept[: kept.rfind("\n")] + "\n\n(cut here: a summary holds 1 MiB)\n").encode()
        with Path(self._summary_file).open("ab") as file:
            file.write(encoded)

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _data(text: str) -> str:
    """Escape what follows the `::` of a workflow command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Escape a property of a workflow command."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
