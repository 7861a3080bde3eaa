"""This side of the files that the Neuron worker speaks: whatever comes back is checked before it is believed.

The children here are plain Python programs in the place of the SDK's interpreter.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from hfexport._internal import workers
from hfexport.backends.neuron import worker as worker_module
from hfexport.backends.neuron.environment import check_environment, find_python
from hfexport.backends.neuron.messages import ProbeRequest, WorkerAnswer
from hfexport.backends.neuron.options import NeuronOptions, NeuronRun, Target
from hfexport.backends.neuron.protocol import _ERRORS, Answer, NoDevice, ask
from hfexport.errors import ExportError, HfexportError, NeuronError, UnsupportedError, ValidationError

PROTOCOL, SDKS = worker_module.PROTOCOL, worker_module.SDKS

PRELUDE = f"""#!{sys.executable}
import hashlib, json, os, signal, subprocess, sys, time
from pathlib import Path
folder = Path(sys.argv[-1])
job = json.loads((folder / "job.json").read_text())
def answer(**values):
    (folder / "result.json").write_text(json.dumps({{"protocol": {PROTOCOL}, "status": "ok", **values}}))
def entry(name, content=b"content"):
    (folder / name).write_bytes(content)
    return {{"path": name, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}}
"""


class _Answer(WorkerAnswer, frozen=True):
    """Everything that the programs of these tests answer."""

    versions: dict[str, str] = msgspec.field(default_factory=dict)
    env: dict[str, str] = msgspec.field(default_factory=dict)


class Child:
    """A program in the place of the SDK's interpreter, and what it printed."""

    def __init__(self, tmp_path: Path, env: dict[str, str] | None = None) -> None:
        self.program = tmp_path / "bin" / "python"
        self.program.parent.mkdir()
        self.folder = tmp_path / "work"
        self.lines: list[str] = []
        self.run = NeuronRun(NeuronOptions("inf1", self.program), self.folder, env or dict(os.environ), self._listen)

    def _listen(self, lines: Iterable[str]) -> None:
        self.lines.extend(lines)

    def ask(self, code: str, timeout_s: float = 60.0) -> Answer[_Answer]:
        self.program.write_text(PRELUDE + textwrap.dedent(code))
        self.program.chmod(0o755)
        return ask(self.run, ProbeRequest(), _Answer, self.folder, timeout_s=timeout_s)


@pytest.fixture
def child(tmp_path: Path) -> Child:
    return Child(tmp_path)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(pid)


def test_an_answer_comes_back_with_its_files_checked(child: Child) -> None:
    answer = child.ask("answer(files=[entry('model.neuron')], versions={'python': '3.8'})")
    assert answer.values.versions == {"python": "3.8"}
    assert answer.files == {"model.neuron": child.folder / "model.neuron"}


def test_the_job_says_protocol_and_target(child: Child) -> None:
    child.ask("answer(job=job)")
    job = json.loads((child.folder / "job.json").read_text())
    assert job == {"protocol": PROTOCOL, "target": "inf1", "action": "probe"}


def test_what_the_child_prints_is_passed_on_and_nothing_of_it_is_an_answer(child: Child) -> None:
    child.ask("print('::set-output name=x::y'); print('{\"status\": \"error\"}'); print('\\x00\\xff'); answer()")
    assert child.lines[:2] == ["::set-output name=x::y", '{"status": "error"}']


def test_a_megabyte_of_stderr_blocks_nobody(child: Child) -> None:
    child.ask("sys.stderr.write('x' * 99 + '\\n'); sys.stderr.write('y' * 1_000_000); answer()")
    assert child.lines[0] == "x" * 99
    assert sum(map(len, child.lines)) == 99 + 1_000_000


def test_the_child_sees_no_token_and_its_own_compiler_first(tmp_path: Path) -> None:
    secret = {"HF_TOKEN": "secret", "INPUT_HUB-TOKEN": "secret", "PYTHONPATH": "/elsewhere", "PATH": "/usr/bin:/bin"}
    child = Child(tmp_path, secret)
    answer = child.ask("answer(env=dict(os.environ))")
    env = answer.values.env
    assert "secret" not in str(env) and "PYTHONPATH" not in env
    assert env["PATH"] == f"{child.program.parent}:/usr/bin:/bin"
    assert env["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("pass", "exit code 0 and no readable answer"),
        ("raise KeyError('a bug')", r"exit code 1 and no readable answer(.|\n)*KeyError: 'a bug'"),
        ("(folder / 'result.json').write_text('{not json')", "no readable answer"),
        ("(folder / 'result.json').write_bytes(b'\\xff\\xfe')", "no readable answer"),
        ("(folder / 'result.json').write_text('[' * 100_000)", "no readable answer"),
        ("(folder / 'result.json').write_text('[]')", "uses protocol None"),
        ("(folder / 'result.json').write_text('[' + '0,' * 4_000_000 + '0]')", "uses protocol None"),
        ("(folder / 'x').write_text('{}'); (folder / 'result.json').symlink_to(folder / 'x')", "uses protocol None"),
        ("answer(protocol=2)", "uses protocol 2, not 1"),
        ("answer(protocol='1')", "uses protocol '1', not 1"),
        ("answer(status='fine')", "status 'fine'"),
        ("answer(); sys.exit(3)", "exit code 3 and status 'ok'"),
        ("answer(status='error', code='surprise', message='x')", "unknown error code 'surprise'"),
        ("answer(files='model.neuron')", r"not as agreed: Expected `array`, got `str` - at `\$.files`"),
        ("answer(files=[1])", r"not as agreed: Expected `object`, got `int` - at `\$.files\[0\]`"),
        ("answer(files=[{'path': 'a'}])", "missing required field `size_bytes`"),
        ("entry('a'); answer(files=[{'path': 'a', 'size_bytes': 'x', 'sha256': 'y'}])", "Expected `int`, got `str`"),
        ("answer(versions=['3.8'])", r"Expected `object`, got `array` - at `\$.versions`"),
    ],
)
def test_a_broken_protocol_is_refused(child: Child, code: str, message: str) -> None:
    with pytest.raises(NeuronError, match=message) as caught:
        child.ask(code)
    assert caught.value.exit_code == 8 and caught.value.remedy


@pytest.mark.parametrize("name", ["../secret", "{absolute}", "sub/model", "..", ".", "link", "missing", ""])
def test_a_path_that_escapes_or_is_no_file_is_refused(tmp_path: Path, child: Child, name: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"content")
    digest = hashlib.sha256(b"content").hexdigest()
    path = name.format(absolute=secret)
    with pytest.raises(NeuronError, match="not a regular file in its folder"):
        child.ask(
            f"""
            (folder / "link").symlink_to({str(secret)!r})
            (folder / "sub").mkdir(); entry("sub/model")
            answer(files=[{{"path": {path!r}, "size_bytes": 7, "sha256": {digest!r}}}])
            """
        )


@pytest.mark.parametrize("change", ["b'tampere'", "b'content and more'", "b''"])
def test_a_tampered_artifact_is_refused(child: Child, change: str) -> None:
    code = f"""
    files = [entry("model.neuron")]
    (folder / "model.neuron").write_bytes({change})
    answer(files=files)
    """
    with pytest.raises(NeuronError, match="model.neuron has changed since the worker wrote it"):
        child.ask(code)


@pytest.mark.parametrize(
    ("kill", "message"),
    [
        ("SIGKILL", "most likely because memory ran out"),
        ("SIGSEGV", "ended by SIGSEGV"),
        ("SIGABRT", "ended by SIGABRT"),
    ],
)
def test_a_child_that_dies_is_the_toolchains_failure(child: Child, kill: str, message: str) -> None:
    with pytest.raises(NeuronError, match=message):
        child.ask(f"print('the last line', flush=True); os.kill(os.getpid(), signal.{kill})")
    assert child.lines == ["the last line"]


def test_a_child_that_ignores_sigterm_is_stopped_with_all_that_it_started(child: Child) -> None:
    code = """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    compiler = subprocess.Popen(["sleep", "600"])
    (folder / "pids").write_text(f"{os.getpid()} {compiler.pid}")
    time.sleep(600)
    """
    with pytest.raises(NeuronError, match=r"not finished after [0-9.]+ s; stopped"):
        child.ask(code, timeout_s=2.0)
    pids = [int(pid) for pid in (child.folder / "pids").read_text().split()]
    assert all(ends(pid) for pid in pids)


def test_every_error_of_the_worker_has_an_answer_to_it() -> None:
    assert set(_ERRORS) | {"no_device"} == set(worker_module.CODES)


@pytest.mark.parametrize("code", worker_module.CODES)
def test_errors_of_the_worker_say_what_to_do(child: Child, code: str) -> None:
    kinds = {4: UnsupportedError, 5: ExportError, 6: ValidationError, 8: NeuronError}
    with pytest.raises((HfexportError, NoDevice), match="what was found") as caught:
        child.ask(f"answer(status='error', code={code!r}, message='what was found')")
    if code == "no_device":
        assert isinstance(caught.value, NoDevice)
    else:
        assert isinstance(caught.value, HfexportError)
        assert type(caught.value) is kinds[caught.value.exit_code]
        assert caught.value.remedy.endswith(".") and "{" not in caught.value.remedy


def test_an_interpreter_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(NeuronError, match="neuron-python is 'no/such/python', which is not a program") as caught:
        find_python("no/such/python", "inf1")
    assert caught.value.exit_code == 8
    with pytest.raises(NeuronError, match="neuron-python is unset"):
        find_python(None, "inf2")
    assert find_python(sys.executable, "inf1") == Path(sys.executable)
    broken = tmp_path / "python"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o755)
    run = NeuronRun(NeuronOptions("inf1", broken), tmp_path / "work", {}, list)
    with pytest.raises(NeuronError, match="cannot be started"):
        check_environment(run)


class Environment:
    """A virtual environment with packages that are there by name alone, for the worker's own probe."""

    def __init__(self, folder: Path, target: Target = "inf1") -> None:
        self.sdk = SDKS[target]
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        self.python = folder / "bin" / "python"
        (self.packages,) = folder.glob("lib/python3.*/site-packages")
        versions = {"torch": f"{self.sdk['torch']}1", "transformers": "4.46.3", "numpy": "1.22.4"}
        for name, version in {**versions, **dict.fromkeys(self.sdk["packages"], "1.13.1.2")}.items():
            self.install(name, version)
        self.module("trace = None")
        self.compiler = folder / "bin" / self.sdk["compiler"]
        self.compiler.write_text("#!/bin/sh\n")
        self.compiler.chmod(0o755)
        self.run = NeuronRun(NeuronOptions(target, self.python), folder / "work", {"PATH": "/usr/bin:/bin"}, list)

    def install(self, name: str, version: str) -> None:
        info = self.packages / f"{name.replace('-', '_')}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    def module(self, code: str) -> None:
        """Put `code` into the SDK's place."""
        (self.packages / f"{self.sdk['module']}.py").write_text(code)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "venv")


@pytest.fixture(params=["inf1", "inf2"])
def either(tmp_path: Path, request: pytest.FixtureRequest) -> Environment:
    return Environment(tmp_path / "venv", request.param)


def test_a_complete_environment_says_its_versions(either: Environment) -> None:
    versions = check_environment(either.run)
    assert versions[either.sdk["packages"][0]] == "1.13.1.2" and versions["transformers"] == "4.46.3"


def test_a_placeholder_from_pypi_is_told_apart(either: Environment) -> None:
    either.module("raise ImportError('*** WRONG PACKAGE: install from AWS instead ***')")
    with pytest.raises(NeuronError, match=f"import {either.sdk['module']}: .*WRONG PACKAGE") as caught:
        check_environment(either.run)
    assert "placeholder" in caught.value.remedy and str(either.python) in caught.value.remedy


def test_an_sdk_that_cannot_trace_is_of_a_wrong_version(environment: Environment) -> None:
    environment.module("")
    with pytest.raises(NeuronError, match="torch-neuron 1.13.1.2 has no trace"):
        check_environment(environment.run)


def test_a_missing_package_is_named(environment: Environment) -> None:
    environment.module("import libneuron")
    with pytest.raises(NeuronError, match="No module named 'libneuron'"):
        check_environment(environment.run)
    (environment.packages / "neuron_cc.dist-info" / "METADATA").unlink()
    (environment.packages / "neuron_cc.dist-info").rmdir()
    with pytest.raises(NeuronError, match="package neuron-cc is not installed") as caught:
        check_environment(environment.run)
    assert "neuron-cc[tensorflow]==1.24" in caught.value.remedy


def test_a_missing_compiler_is_named(either: Environment) -> None:
    either.compiler.unlink()
    with pytest.raises(NeuronError, match=f"the compiler {either.sdk['compiler']} is not beside"):
        check_environment(either.run)


@pytest.mark.parametrize(("package", "version"), [("torch", "2.1.0"), ("transformers", "5.0.0"), ("torch", "1.9.1")])
def test_wrong_versions_are_named(environment: Environment, package: str, version: str) -> None:
    environment.install(package, version)
    with pytest.raises(NeuronError, match=rf"{package} is {version}; [0-9.]+\* is needed"):
        check_environment(environment.run)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_worker_and_its_compiler_end_with_a_parent_that_was_killed(
    environment: Environment, tmp_path: Path
) -> None:
    code = (
        "import os, subprocess, time\n"
        "compiler = subprocess.Popen(['sleep', '600'])\n"
        "open('pids.part', 'w').write(f'{os.getpid()} {compiler.pid}')\n"
        "os.rename('pids.part', 'pids')\n"
        "time.sleep(600)\n"
    )
    environment.module(code)
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from hfexport.backends.neuron.environment import check_environment\n"
        "from hfexport.backends.neuron.options import NeuronOptions, NeuronRun\n"
        f"options = NeuronOptions('inf1', Path({str(environment.python)!r}))\n"
        f"check_environment(NeuronRun(options, Path({str(tmp_path / 'killed')!r}), {{}}, list))\n"
    )
    root = str(Path(workers.__file__).parents[1])
    with subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": root}) as parent:
        pids = tmp_path / "killed" / "probe" / "pids"
        while not pids.exists():
            assert parent.poll() is None
            time.sleep(0.05)
        children = [int(pid) for pid in pids.read_text().split()]
        assert all(map(is_running, children))
        parent.send_signal(signal.SIGKILL)
    assert all(ends(pid) for pid in children)
