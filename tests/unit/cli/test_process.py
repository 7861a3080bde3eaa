"""How the command's process ends: quickly, with the right code, and quietly when nobody reads on."""

from __future__ import annotations

import subprocess
import sys

COMMAND = [sys.executable, "-m", "hfexport"]


def test_everything_printed_arrives_and_the_exit_code_is_kept() -> None:
    result = subprocess.run([*COMMAND, "--opset", "x"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "--opset is 'x'" in result.stderr


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    program = "from hfexport.cli import main as cli; cli.overview = lambda: 'x' * 1_000_000; cli.command()"
    arguments = [sys.executable, "-c", program, "--help"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
