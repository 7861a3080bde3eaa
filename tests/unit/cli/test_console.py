"""The console: what goes where, what cannot get through it, and what the runner makes of it."""

from __future__ import annotations

import io
import itertools
import json
import random
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from hfexport._internal.peak_memory import peak_memory_bytes
from hfexport.cli.console import MAX_SUMMARY_BYTES, Console
from hfexport.errors import CheckpointError, HfexportError, InputsError
from hfexport.run.observer import Observer

ACTIONS = {"GITHUB_ACTIONS": "true"}
NASTY = "%\r\n:,;=]#[* \t\u2028\x0b\x1b\x85aé\u00a0"


class _Screen(io.StringIO):
    """What a terminal is given."""

    def isatty(self) -> bool:
        return True


class _Streams:
    """A console and what it wrote."""

    def __init__(
        self, env: Mapping[str, str] | None = None, *, terminal: bool = False, tick_s: float = 4.0, **options: object
    ) -> None:
        self.stdout = io.StringIO()
        self.stderr = _Screen() if terminal else io.StringIO()
        self.ticks = itertools.count()
        self.console = Console(self.stdout, self.stderr, env or {}, clock=lambda: tick_s * next(self.ticks), **options)  # type: ignore[arg-type]

    @property
    def out(self) -> str:
        return self.stdout.getvalue()

    @property
    def err(self) -> str:
        return self.stderr.getvalue()

    @property
    def both(self) -> str:
        return self.out + self.err


def _commands(log: str) -> list[tuple[str, dict[str, str], str]]:
    """The commands that the runner reads out of a log: name, properties and data, as its documentation describes."""
    found = []
    stopped = ""
    for line in re.split(r"\r\n|\r|\n", log):
        match = re.fullmatch(r"\s*::([^ :]+)(?: ([^:]*))?::(.*)", line, re.DOTALL)
        if not match:
            assert stopped or not re.search(r"##\[(error|warning|group|command|add-mask)", line)
            continue
        name, properties, data = match[1], match[2] or "", match[3]
        if stopped:
            stopped = "" if name == stopped else stopped
            continue
        if name == "stop-commands":
            stopped = data
        pairs = dict(pair.split("=", 1) for pair in properties.split(",") if pair)
        found.append((name, {key: _unescaped(value) for key, value in pairs.items()}, _unescaped(data)))
    assert not stopped, "the fence was left closed"
    return found


def _unescaped(text: str) -> str:
    for escape, character in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(escape, character)
    return text


def _random_texts(count: int) -> Iterator[str]:
    rng = random.Random(11)
    parts = [*NASTY, "::", "::error::", "::set-output name=a::b", "##[error]", "%0A", "%25", "\n::warning::x", "word"]
    for _ in range(count):
        yield "".join(rng.choices(parts, k=rng.randint(0, 8)))


def test_notes_go_to_stderr_and_data_to_stdout() -> None:
    streams = _Streams()
    streams.console.note("a note")
    streams.console.warn("a warning")
    streams.console.error(CheckpointError("model.safetensors is cut short", remedy="Save it again."))
    streams.console.table(["artifact", "size"], [["onnx", "1 MB"]])
    streams.console.data('{"verdict": "passed"}')
    assert streams.out == '{"verdict": "passed"}\n'
    assert streams.err.splitlines() == [
        "a note",
        "warning: a warning",
        "error: model.safetensors is cut short",
        "Save it again.",
        "artifact  size",
        "--------  ----",
        "onnx      1 MB",
    ]


def test_on_actions_the_log_keeps_its_order_on_stdout() -> None:
    streams = _Streams(ACTIONS)
    with streams.console.stage("Export"):
        streams.console.note("inside")
        streams.console.warn("look: 50%, done")
    assert streams.err == ""
    assert re.sub(r"peak memory [0-9.]+ .B", "peak", streams.out).splitlines() == [
        "::group::Export",
        "inside",
        "::warning title=hfexport::look: 50%25, done",
        "::endgroup::",
        "Export: 4.0 s, peak",
    ]


def test_with_json_stdout_is_the_manifest_alone_on_actions_too() -> None:
    streams = _Streams(ACTIONS, json_output=True)
    streams.console.mask("s3cret")
    with streams.console.stage("Export"):
        streams.console.warn("look")
    streams.console.error(HfexportError("bad"))
    streams.console.table(["a"], [["b"]])
    streams.console.child_output(["line"])
    manifest = {"text": "##[error]x ::error::y"}
    streams.console.data(json.dumps(manifest))
    assert json.loads(streams.out) == manifest
    assert "##[" not in streams.out
    names = [name for name, _, _ in _commands(streams.err)]
    assert names == ["add-mask", "group", "warning", "endgroup", "error", "stop-commands"]


def test_each_problem_of_wrong_inputs_is_an_annotation() -> None:
    streams = _Streams(ACTIONS)
    streams.console.error(InputsError(["--opset is 'x'", "--modle is not an option"]))
    assert _commands(streams.out) == [
        ("error", {"title": "Wrong inputs"}, "--opset is 'x'"),
        ("error", {"title": "Wrong inputs"}, "--modle is not an option"),
    ]


def test_an_annotation_holds_the_remedy() -> None:
    streams = _Streams(ACTIONS)
    streams.console.error(CheckpointError("50% of it,\r\nis: gone", remedy="Save it again."))
    assert _commands(streams.out) == [
        ("error", {"title": "Checkpoint not usable"}, "50% of it,\nis: gone\nSave it again.")
    ]
    assert streams.out.count("\n") == 1


def test_a_title_is_escaped_as_a_property() -> None:
    class OddError(HfexportError):
        title = "a, title: 100%::\nb"

    streams = _Streams(ACTIONS)
    streams.console.error(OddError("text"))
    assert _commands(streams.out) == [("error", {"title": "a, title: 100%::\nb"}, "text")]


def test_no_text_becomes_another_command() -> None:
    for text in _random_texts(3000):
        streams = _Streams(ACTIONS)
        console = streams.console
        console.note(text)
        console.table([text], [[text]])
        console.child_output([text, text])
        console.warn(text)
        console.error(CheckpointError(text, remedy=text))
        with console.stage(text):
            console.note(text)
        names = [name for name, _, _ in _commands(streams.out)]
        assert names == ["stop-commands", "warning", "error", "group", "endgroup"], (text, streams.out)


def test_what_is_annotated_arrives() -> None:
    for text in _random_texts(1000):
        printable = re.sub(r"[\x0b\x1b\x85\u2028]", "", text).replace("\r\n", "\n").replace("\r", "\n")
        streams = _Streams(ACTIONS)
        streams.console.warn(printable)
        # The runner turns the literal text `%0A` back correctly, but only since `%` was escaped first.
        assert streams.out == f"::warning title=hfexport::{_escaped(printable)}\n"


def _escaped(text: str) -> str:
    return "".join({"%": "%25", "\r": "%0D", "\n": "%0A"}.get(character, character) for character in text)


def test_text_cannot_control_a_terminal() -> None:
    streams = _Streams()
    streams.console.note("a\x1b[2Jb\x07c\x9bd\te\rf")
    assert streams.err == "a\\x1b[2Jb\\x07c\\x9bd\te\nf\n"


def test_a_stage_that_fails_says_so_and_closes_its_group() -> None:
    for error in (CheckpointError("bad"), KeyboardInterrupt()):
        streams = _Streams(ACTIONS)
        with pytest.raises(type(error)), streams.console.stage("Export"):
            raise error
        assert "Export: failed after 4.0 s" in streams.out
        streams = _Streams(ACTIONS)
        with pytest.raises(type(error)), streams.console.stage("Export"):
            streams.console.note("inside")
            raise error
        assert [name for name, _, _ in _commands(streams.out)] == ["group", "endgroup"]
        assert "Export: failed after 4.0 s" in streams.out


def test_on_actions_a_stage_without_notes_has_no_group_and_a_short_one_says_nothing() -> None:
    streams = _Streams(ACTIONS)
    with streams.console.stage("Long"):
        pass
    (line,) = streams.both.splitlines()
    assert line.startswith("Long: 4.0 s, peak memory")
    quiet = _Streams(ACTIONS, tick_s=0.5)
    with quiet.console.stage("Short"):
        pass
    assert quiet.both == ""


def test_groups_do_not_nest() -> None:
    streams = _Streams(ACTIONS)
    with streams.console.stage("Outer"):
        with streams.console.stage("Inner"):
            streams.console.note("deep")
        streams.console.note("shallow")
    with streams.console.stage("Next"):
        streams.console.note("more")
    assert [(name, data) for name, _, data in _commands(streams.out)] == [
        ("group", "Outer"),
        ("endgroup", ""),
        ("group", "Next"),
        ("endgroup", ""),
    ]
    lines = streams.out.splitlines()
    assert lines.index("Inner ...") < lines.index("deep") < lines.index("shallow") < lines.index("::endgroup::")


def test_a_stage_is_lines_where_there_is_neither_actions_nor_a_terminal() -> None:
    streams = _Streams()
    with streams.console.stage("Export"):
        streams.console.note("inside")
    first, second, last = streams.err.splitlines()
    assert (first, second) == ("Export ...", "inside")
    assert re.fullmatch(r"Export: 4\.0 s, peak memory [0-9.]+ [MG]B", last)


def test_progress_is_a_line_now_and_then() -> None:
    streams = _Streams()  # each look at the clock is four seconds later
    with streams.console.progress("Weights", 2_000_000_000, unit="B") as advance:
        for _ in range(8):
            advance(250_000_000)
    assert streams.err.splitlines() == [
        "Weights: 37 % (750.0 MB of 2.0 GB)",
        "Weights: 75 % (1.5 GB of 2.0 GB)",
    ]


def test_progress_of_nothing() -> None:
    streams = _Streams()
    with streams.console.progress("Weights", 0) as advance:
        for _ in range(5):
            advance(0)
    assert streams.err == "Weights: 100 % (0 of 0)\n"


def test_a_terminal_gets_a_spinner_and_bars_and_no_commands() -> None:
    streams = _Streams({"TERM": "xterm-256color"}, terminal=True)
    streams.console.mask("s3cret")
    with streams.console.stage("Export s3cret"):
        with streams.console.progress("Weights", 4, unit="files") as advance:
            advance(3)
            streams.console.note("a [bold]note[/bold] on s3cret :smile: " + "long " * 60)
        streams.console.warn("careful")
    streams.console.note("after")
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", streams.err)
    assert streams.out == ""
    assert "s3cret" not in plain
    assert "Export ***" in plain
    assert "3 of 4 files" in plain
    assert "a [bold]note[/bold] on *** :smile: " + "long " * 59 + "long" in plain
    assert "::" not in plain
    assert "warning: careful" in plain
    assert re.search(r"Export \*\*\*: [0-9.]+ s, peak memory", plain)
    assert streams.err.endswith("after\n")
    assert streams.err.count("\x1b[?25l") == streams.err.count("\x1b[?25h"), "the cursor was left hidden"


def test_a_terminal_is_left_in_order_by_a_failure() -> None:
    streams = _Streams({"TERM": "xterm"}, terminal=True)
    with pytest.raises(KeyboardInterrupt), streams.console.stage("Export"), streams.console.progress("Weights", 4):
        raise KeyboardInterrupt
    assert streams.err.count("\x1b[?25l") == streams.err.count("\x1b[?25h")
    assert "failed after" in streams.err


@pytest.mark.parametrize("env", [{}, {"TERM": "dumb"}, {"TERM": "xterm", **ACTIONS}])
def test_no_bars_where_they_cannot_be_drawn(env: dict[str, str]) -> None:
    streams = _Streams(env, terminal=True)
    with streams.console.stage("Export"):
        pass
    assert "\x1b" not in streams.both


def test_a_mask_comes_before_everything_and_holds_everywhere(tmp_path: Path) -> None:
    secret = "hf_abc%:,\"def'\n second line \n\n"
    env = {"GITHUB_OUTPUT": str(tmp_path / "output"), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
    for more in (ACTIONS, {}, {"TERM": "xterm"}):
        streams = _Streams({**env, **more}, terminal="TERM" in more, verbose=True)
        console = streams.console
        console.mask(secret)
        masks = streams.both
        texts = [secret, secret.strip(), "hf_abc%:,\"def'", "second line", repr(secret), json.dumps({"a": secret})]
        texts.append("https://user:hf_abc%25%3A%2C%22def%27@host/")
        for text in texts:
            console.note(text)
            console.warn(text)
            cause = ValueError(text)
            error = CheckpointError(text, remedy=text)
            error.__cause__ = cause
            console.error(error)
            console.error(InputsError([text, text]))
            console.table([text], [[text]])
            console.child_output([text, *text.splitlines()])
            with console.stage(text), console.progress(text, 2, unit=text) as advance:
                for _ in range(8):
                    advance(1)
            console.data(json.dumps({"a": text}))
            console.write_outputs({"verdict": text})
            console.append_summary(text)
        everything = streams.both.removeprefix(masks) + "".join(path.read_text() for path in tmp_path.iterdir())
        assert "***" in everything
        for part in ("hf_abc", "second line"):
            assert part not in everything
        if more is ACTIONS:
            assert _commands(masks) == [("add-mask", {}, "hf_abc%:,\"def'"), ("add-mask", {}, "second line")]
        else:
            assert masks == ""


def test_a_longer_secret_is_hidden_before_one_that_it_contains() -> None:
    streams = _Streams()
    streams.console.mask("abc")
    streams.console.mask("abcdef")
    streams.console.note("abcdef abc")
    assert streams.err == "*** ***\n"


@pytest.mark.parametrize("secret", ["", " ", "\n\n"])
def test_an_empty_secret_hides_nothing(secret: str) -> None:
    streams = _Streams(ACTIONS)
    streams.console.mask(secret)
    streams.console.note("a b")
    assert streams.out == "a b\n"


def test_random_secrets_are_hidden() -> None:
    rng = random.Random(5)
    for _ in range(500):
        secret = "".join(rng.choices("abcXYZ%\"'\\\n:,/+= é", k=12))
        lines = [line.strip() for line in secret.splitlines() if len(line.strip()) > 2]
        streams = _Streams(ACTIONS)
        streams.console.mask(secret)
        start = len(streams.out)
        streams.console.note(f"before {secret} after {secret!r}")
        streams.console.warn(f"x{secret}y")
        streams.console.data(json.dumps([secret]))
        for line in lines:
            assert line not in _unescaped(streams.out[start:])


def test_the_exception_behind_an_error_is_shown_when_asked_for() -> None:
    error = CheckpointError("bad")
    error.__cause__ = OSError("the disk")
    for options, env, shown in (
        ({}, {}, False),
        ({"verbose": True}, {}, True),
        ({}, {"RUNNER_DEBUG": "1"}, True),
    ):
        streams = _Streams(env, **options)
        streams.console.error(error)
        assert ("OSError: the disk" in streams.err) == shown


def test_what_a_child_says_comes_as_it_is_said_between_fences() -> None:
    streams = _Streams(ACTIONS)
    seen = []

    def child() -> Iterator[str]:
        for line in ("one\n", "::error::two\r\n", "three"):
            seen.append(streams.out)
            yield line

    streams.console.child_output(child())
    first, *said, last = streams.out.splitlines()
    fence = first.removeprefix("::stop-commands::")
    assert re.fullmatch(r"[0-9a-f]{32}", fence)
    assert said == ["one", ": :error::two", "three"]
    assert last == f"::{fence}::"
    assert seen[2].endswith("two\n")
    streams.console.child_output(["again"])
    assert streams.out.count(fence) == 2


def test_the_fence_is_opened_again_when_a_child_fails() -> None:
    streams = _Streams(ACTIONS)

    def child() -> Iterator[str]:
        yield "one"
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        streams.console.child_output(child())
    assert [name for name, _, _ in _commands(streams.out)] == ["stop-commands"]


def _read_outputs(path: Path) -> dict[str, str]:
    """As the runner reads its file of outputs."""
    found = {}
    lines = path.read_text(encoding="utf-8").split("\n")
    while lines and lines[0]:
        name, delimiter = lines.pop(0).split("<<", 1)
        end = lines.index(delimiter)
        found[name] = "\n".join(lines[:end])
        del lines[: end + 1]
    assert lines == [""]
    return found


def test_outputs_arrive_whatever_they_hold(tmp_path: Path) -> None:
    for index, text in enumerate(_random_texts(300)):
        path = tmp_path / f"output-{index}"
        console = _Streams({"GITHUB_OUTPUT": str(path)}).console
        value = text.replace("\r", "").replace("\u2028", "").replace("\x85", "").replace("\x0b", "")
        outputs = {"manifest": "a/hfexport.json", "verdict": value, "max-abs-diff": "EOF\nverdict=forged\nverdict<<EOF"}
        console.write_outputs(outputs)
        console.write_outputs({"onnx": ""})
        assert _read_outputs(path) == {**outputs, "onnx": ""}


def test_every_output_has_a_delimiter_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "output"
    _Streams({"GITHUB_OUTPUT": str(path)}).console.write_outputs({f"name{index}": "x" for index in range(50)})
    delimiters = re.findall(r"<<(.+)", path.read_text(encoding="utf-8"))
    assert len(set(delimiters)) == 50


def test_a_value_that_contains_its_delimiter_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "output"
    console = _Streams({"GITHUB_OUTPUT": str(path)}, token=lambda: "known").console
    with pytest.raises(ValueError, match="contains its delimiter"):
        console.write_outputs({"manifest": "fine", "verdict": "x\nhfexport-known\nonnx=forged"})
    assert not path.exists()


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a<<b", "a\nb", "1a"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    console = _Streams({"GITHUB_OUTPUT": str(tmp_path / "output")}).console
    with pytest.raises(ValueError, match="no name for an output"):
        console.write_outputs({name: "x"})


def test_nothing_is_written_away_from_actions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for env in ({}, {"GITHUB_OUTPUT": "", "GITHUB_STEP_SUMMARY": ""}):
        streams = _Streams(env)
        streams.console.write_outputs({"verdict": "passed"})
        streams.console.append_summary("# Summary")
        assert streams.both == ""
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    env = {"GITHUB_OUTPUT": str(tmp_path / "no/output"), "GITHUB_STEP_SUMMARY": str(tmp_path)}
    streams = _Streams(env)
    streams.console.write_outputs({"verdict": "passed"})
    streams.console.append_summary("# Summary")
    first, second = streams.err.splitlines()
    assert first.startswith("warning: GITHUB_OUTPUT names ")
    assert second.startswith("warning: GITHUB_STEP_SUMMARY names ")


def test_summaries_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "summary"
    console = _Streams({"GITHUB_STEP_SUMMARY": str(path)}).console
    console.append_summary("# One\n")
    console.append_summary("Two é")
    assert path.read_text(encoding="utf-8") == "# One\nTwo é\n"


@pytest.mark.parametrize("line", ["é" * 100, "x", "| a | b |", "```"])
@pytest.mark.parametrize("present", [0, 1000, MAX_SUMMARY_BYTES - 300])
def test_a_summary_is_cut_at_a_line_with_a_note(tmp_path: Path, line: str, present: int) -> None:
    path = tmp_path / "summary"
    path.write_bytes(b"p" * present)
    console = _Streams({"GITHUB_STEP_SUMMARY": str(path)}).console
    console.append_summary(f"{line}\n" * (2 * MAX_SUMMARY_BYTES // (len(line.encode()) + 1)))
    content = path.read_bytes()
    assert len(content) <= MAX_SUMMARY_BYTES
    text = content[present:].decode()
    assert "Cut here: a job summary holds 1 MiB" in text
    assert text.count("```") % 2 == 0, "a code block was left open around the note"
    kept = text[: text.index("*Cut here")].strip().splitlines()
    assert set(filter(None, kept)) <= {line, "```"}


def test_a_summary_that_just_fits_is_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "summary"
    _Streams({"GITHUB_STEP_SUMMARY": str(path)}).console.append_summary("x" * (MAX_SUMMARY_BYTES - 1))
    assert path.stat().st_size == MAX_SUMMARY_BYTES
    assert "Cut here" not in path.read_text(encoding="utf-8")


def test_a_full_summary_stays_within_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "summary"
    for present in (MAX_SUMMARY_BYTES - 5, MAX_SUMMARY_BYTES, MAX_SUMMARY_BYTES + 5):
        path.write_bytes(b"p" * present)
        _Streams({"GITHUB_STEP_SUMMARY": str(path)}).console.append_summary("more\n" * 100)
        assert path.stat().st_size <= max(present, MAX_SUMMARY_BYTES)


def test_a_stream_that_cannot_say_it_gets_escapes() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Console(stream, stream, {}).note("é \udcff")
    assert raw.getvalue() == b"\\xe9 \\udcff\n"


def test_the_console_is_an_observer() -> None:
    observer: Observer = _Streams().console
    with observer.stage("Export"):
        observer.note("inside")


def test_peak_memory_is_that_of_this_process() -> None:
    before = peak_memory_bytes()
    assert before is not None
    block = bytearray(before + 50_000_000)
    after = peak_memory_bytes()
    assert after is not None
    assert after >= len(block)


def test_a_long_log_is_cut_unless_all_is_asked_for_and_read_to_its_end() -> None:
    for verbose in (False, True):
        streams = _Streams(verbose=verbose)
        lines = iter(str(number) for number in range(3000))
        streams.console.child_output(lines)
        shown = streams.err.splitlines()
        assert next(lines, None) is None and shown[:2] == ["0", "1"]
        assert shown[2000:] == (
            [str(number) for number in range(2000, 3000)]
            if verbose
            else ["... and 1000 more lines, which --verbose shows"]
        )
