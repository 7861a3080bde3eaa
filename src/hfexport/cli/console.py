"""Write all output: workflow commands on Actions, progress on a terminal, plain lines elsewhere.

Data goes to stdout and notes to stderr. On Actions, notes go to stdout too, so that the log keeps their order. With
`--json`, only the manifest goes to stdout and all notes go to stderr, where the runner also reads commands.

Secrets are replaced in everything that is written here. Text from a checkpoint or a child process cannot issue commands
to the runner or control a terminal.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from hfexport._internal.peak_memory import peak_memory_bytes
from hfexport._internal.sizes import size_text
from hfexport.cli.escaping import escape_data, escape_property, harmless, spellings
from hfexport.errors import HfexportError, InputsError, InternalError
from hfexport.run.observer import Advance, StageOutcome

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Console"]

MAX_SUMMARY_BYTES: Final = 1024 * 1024
"""Size limit in bytes; the runner drops larger summaries as a whole."""
CUT_NOTE: Final = "\n\n*Cut here: a job summary holds 1 MiB. The manifest has it all.*\n"
PROGRESS_INTERVAL_S: Final = 10.0
QUIET_S: Final = 1.0
"""Length of a stage in seconds, below which it is not mentioned if it has nothing to say."""
MAX_CHILD_LINES: Final = 2000
HIDDEN: Final = "***"


def _exception_behind(error: HfexportError) -> str:
    """Return the traceback of an error's cause; for a bug in a child process, that of the child."""
    if isinstance(error, InternalError) and error.details:
        return error.details.rstrip()
    if error.__cause__ is None:
        return ""
    import traceback

    return "".join(traceback.format_exception(error.__cause__)).rstrip()


@dataclass
class _Opened:
    """A running stage; `said` is set once its group or its first line is printed."""

    name: str
    grouped: bool
    said: bool = False


def _random_token() -> str:
    return os.urandom(16).hex()


class Console:
    """Print to the user, as the pipeline's `Observer`.

    Args:
        stdout: stream for data.
        stderr: stream for notes.
        env: environment with `GITHUB_ACTIONS`, `GITHUB_OUTPUT`, `GITHUB_STEP_SUMMARY`, `RUNNER_DEBUG` and `TERM`.
        json_output: print only the manifest to stdout.
        verbose: print the exception behind an error, and all output of other programs.
        clock: returns monotonic time in seconds.
        token: returns a new unguessable text at every call.
    """

    def __init__(
        self,
        stdout: TextIO,
        stderr: TextIO,
        env: Mapping[str, str],
        *,
        json_output: bool = False,
        verbose: bool = False,
        clock: Callable[[], float] = time.monotonic,
        token: Callable[[], str] = _random_token,
    ) -> None:
        self._env = env
        self._on_actions = env.get("GITHUB_ACTIONS") == "true"
        self._stdout = stdout
        self._notes = stdout if self._on_actions and not json_output else stderr
        self._verbose = verbose or env.get("RUNNER_DEBUG") == "1"
        self._clock = clock
        self._token = token
        self._secrets: set[str] = set()
        self._open: list[_Opened] = []
        self._terminal: _Terminal | None = None

    def mask(self, secret: str) -> None:
        """Hide `secret` in all later output, on Actions in the runner too; call this before anything else is printed.

        Each line of a multi-line secret is hidden separately, and so are its forms in JSON and URLs.
        """
        lines = [line.strip() for line in secret.splitlines() if line.strip()]
        if self._on_actions:
            for line in lines:
                _write(self._notes, f"::add-mask::{escape_data(line)}\n")
        for text in (secret, secret.strip(), *lines):
            self._secrets |= spellings(text) if text.strip() else set()

    def data(self, json_text: str) -> None:
        """Print a JSON text that the user asked for to stdout."""
        text = self.masked(json_text)
        if self._on_actions:
            # `##[` starts an old form of command anywhere in a line; in JSON it can only be inside a string.
            text = text.replace("##[", "##\\u005b")
        _write(self._stdout, f"{text}\n")

    def note(self, text: str) -> None:
        """Print a note."""
        self._say(text)

    def warn(self, text: str) -> None:
        """Print a warning; an annotation on Actions."""
        self._annotate("warning", "hfexport", text)

    def error(self, error: HfexportError) -> None:
        """Print an error with its remedy; each problem of the inputs is an annotation of its own."""
        problems = error.problems if isinstance(error, InputsError) else (str(error),)
        for problem in problems:
            self._annotate("error", error.title, problem)
        if self._verbose and (shown := _exception_behind(error)):
            self._say(shown)

    @contextmanager
    def stage(self, name: str) -> Iterator[StageOutcome]:
        """Show a stage as a group on Actions, a spinner on a terminal, or lines, with seconds and peak memory.

        On Actions, the group is printed before the stage's first note, and not at all if there is none; a stage without
        notes that ends within `QUIET_S` prints nothing. Groups do not nest, so a stage inside another is printed as
        lines.
        """
        start = self._clock()
        told = StageOutcome()
        outcome = "failed after "
        opened = _Opened(name, grouped=self._on_actions and not self._open)
        self._open.append(opened)
        if not self._on_actions:
            self._on_terminal()
            self._open_stages()
        try:
            with self._live(name):
                yield told
            outcome = ""
        finally:
            self._open.remove(opened)
            if opened.said and opened.grouped:
                _write(self._notes, "::endgroup::\n")
            seconds = self._clock() - start
            if opened.said or outcome or seconds >= QUIET_S or not self._on_actions:
                peak = told.peak_memory_bytes or peak_memory_bytes()
                memory = "" if peak is None else f", peak memory {size_text(peak)}"
                self._say(f"{name}: {outcome}{seconds:.1f} s{memory}")

    @contextmanager
    def progress(self, name: str, total: int, *, unit: str = "") -> Iterator[Advance]:
        """Show a bar on a terminal, else a line every ten seconds; call the returned function with each amount done."""
        terminal = self._on_terminal()
        done = 0
        last = self._clock()
        if terminal is None:

            def advance(amount: int) -> None:
                nonlocal done, last
                done += amount
                if self._clock() - last >= PROGRESS_INTERVAL_S:
                    last = self._clock()
                    self._say(f"{name}: {_share(done, total)} ({_amount(done, total, unit)})")

            yield advance
            return
        with terminal.task(self._clean(name), total) as task:

            def advance_bar(amount: int) -> None:
                nonlocal done
                done += amount
                terminal.update(task, done, self._clean(_amount(done, total, unit)))

            yield advance_bar

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table with aligned columns as a note."""
        lines = [[" ".join(cell.split()) for cell in row] for row in (columns, *rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines.insert(1, ["-" * width for width in widths])
        for line in lines:
            self._say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())

    def child_output(self, lines: Iterable[str]) -> None:
        """Print the lines of a child process as they arrive; on Actions with commands disabled.

        All lines are read, to the end of the child; lines after the first `MAX_CHILD_LINES` are printed only with
        --verbose.
        """
        fence = self._token()
        self._open_stages()
        if self._on_actions:
            _write(self._notes, f"::stop-commands::{fence}\n")
        try:
            count = 0
            for count, line in enumerate(lines, start=1):
                if self._verbose or count <= MAX_CHILD_LINES:
                    self._say(line.rstrip("\r\n"))
            if not self._verbose and count > MAX_CHILD_LINES:
                self._say(f"... and {count - MAX_CHILD_LINES} more lines, which --verbose shows")
        finally:
            if self._on_actions:
                _write(self._notes, f"::{fence}::\n")

    def write_outputs(self, outputs: Mapping[str, str]) -> None:
        """Set the action's outputs if this runs as one, each value between delimiters that it cannot contain.

        Raises:
            ValueError: a name is invalid, or a value contains the random delimiter.
        """
        entries = []
        for name, value in outputs.items():
            delimiter = f"hfexport-{self._token()}"
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name):
                raise ValueError(f"{name!r} is no name for an output")
            if delimiter in value:
                raise ValueError(f"the value of output {name!r} contains its delimiter")
            entries.append(f"{name}<<{delimiter}\n{self.masked(value)}\n{delimiter}\n")
        self._append("GITHUB_OUTPUT", "".join(entries).encode(errors="backslashreplace"))

    def append_summary(self, markdown: str) -> None:
        """Append to the job summary on Actions; text above 1 MiB is cut at a line, with a note."""
        path = self._env.get("GITHUB_STEP_SUMMARY")
        if not path:
            return
        present = Path(path).stat().st_size if Path(path).is_file() else 0
        text = self.masked(markdown).rstrip("\n") + "\n"
        self._append("GITHUB_STEP_SUMMARY", _cut(text.encode(errors="backslashreplace"), MAX_SUMMARY_BYTES - present))

    def _append(self, variable: str, content: bytes) -> None:
        path = self._env.get(variable)
        if not path:
            return
        try:
            with Path(path).open("ab") as file:
                file.write(content)
        except OSError as error:
            self.warn(f"{variable} names {path!r}, which cannot be written: {error.strerror}")

    def _annotate(self, kind: str, title: str, text: str) -> None:
        if self._on_actions:
            self._open_stages()
            title, text = escape_property(self._clean(title)), escape_data(self._clean(text))
            _write(self._notes, f"::{kind} title={title}::{text}\n")
        else:
            self._say(f"{kind}: {text}")

    @contextmanager
    def _live(self, name: str) -> Iterator[None]:
        """Show on a terminal that a stage is running."""
        terminal = self._on_terminal()
        if terminal is None:
            yield
            return
        with terminal.task(self._clean(name), None):
            yield

    def _open_stages(self) -> None:
        """Print the first lines of the running stages that have not printed anything yet."""
        for stage in [stage for stage in self._open if not stage.said]:
            stage.said = True
            if stage.grouped:
                _write(self._notes, f"::group::{escape_data(self._clean(stage.name))}\n")
            elif self._terminal is None:
                self._say(f"{stage.name} ...")

    def _on_terminal(self) -> _Terminal | None:
        """Return the terminal's display if there is one; created on first use, since its import is slow."""
        if self._terminal is None and not self._on_actions and self._notes.isatty():
            if self._env.get("TERM", "dumb") in ("dumb", "unknown"):
                return None
            self._terminal = _Terminal(self._notes, self._env)
        return self._terminal

    def _say(self, text: str) -> None:
        self._open_stages()
        text = self._clean(text)
        if self._on_actions:
            text = harmless(text)
        if self._terminal is not None:
            self._terminal.print(text)
        else:
            _write(self._notes, f"{text}\n")

    def _clean(self, text: str) -> str:
        """Remove secrets, and control characters other than tab and newline."""
        text = re.sub(r"\r\n?", "\n", self.masked(text))
        return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]", lambda match: ascii(match[0])[1:-1], text)

    def masked(self, text: str) -> str:
        """Return the text without secrets."""
        if not self._secrets:
            return text
        # Longest first, since a secret may contain another.
        pattern = "|".join(map(re.escape, sorted(self._secrets, key=len, reverse=True)))
        return re.sub(pattern, HIDDEN, text)


class _Terminal:
    """Spinners and bars one below the other, with printed text above them."""

    def __init__(self, stream: TextIO, env: Mapping[str, str]) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._console = RichConsole(file=stream, _environ=env, markup=False, highlight=False, emoji=False)
        self._progress: Progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[amount]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )

    def print(self, text: str) -> None:
        """Print lines unchanged, of any length."""
        self._console.print(text, soft_wrap=True)

    @contextmanager
    def task(self, name: str, total: int | None) -> Iterator[TaskID]:
        """Show a spinner, or a bar if `total` is known, while this context is open."""
        task = self._progress.add_task(name, total=total, amount="")
        self._progress.start()
        try:
            yield task
        finally:
            self._progress.refresh()
            self._progress.remove_task(task)
            if not self._progress.tasks:
                self._progress.stop()

    def update(self, task: TaskID, done: int, amount: str) -> None:
        """Update a bar."""
        self._progress.update(task, completed=done, amount=amount)


def _write(stream: TextIO, text: str) -> None:
    """Write and flush; if the reader is gone, drop the text and continue."""
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, errors="backslashreplace").decode(encoding))
        stream.flush()
    except OSError:  # a closed pipe, a closed terminal, a full disk
        return


def _cut(content: bytes, limit: int) -> bytes:
    """Cut Markdown to `limit` bytes at the end of a line, close an open code block, and add a note."""
    if len(content) <= limit:
        return content
    note = f"\n```{CUT_NOTE}".encode()
    kept = content[: max(0, limit - len(note))]
    kept = kept[: kept.rfind(b"\n") + 1]
    fences = len(re.findall(rb"(?m)^```", kept))
    return (kept + note[0 if fences % 2 else len(b"\n```") :])[: max(0, limit)]


def _amount(done: int, total: int, unit: str) -> str:
    if unit == "B":
        return f"{size_text(done)} of {size_text(total)}"
    return f"{done} of {total} {unit}".rstrip()


def _share(done: int, total: int) -> str:
    return f"{100 * done // total if total else 100} %"
