"""`python -m hfexport.onnx`: the command line of `transformers.onnx`, implemented with hfexport's pipeline.

Exit codes are those of the older package: 0 for success, 2 for a wrong command line, 1 for any other error.
"""

from __future__ import annotations

import logging
import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hfexport._internal.blame import explain
from hfexport.errors import HfexportError
from hfexport.export_config.tasks import TASK_NAMES
from hfexport.hub.client import configure_process
from hfexport.onnx.log import log_outputs, log_validating
from hfexport.onnx.question import older_probes
from hfexport.run.inputs import Inputs, parsers
from hfexport.run.observer import Advance
from hfexport.run.output_folder import remove_abandoned, staging_folder

if TYPE_CHECKING:
    from hfexport.manifest.entries import Manifest

__all__ = ["main"]

_logger = logging.getLogger("hfexport.onnx")


def main(argv: Sequence[str] | None = None) -> int:
    """Export one model and return the exit code."""
    arguments = _parser().parse_args(argv)
    handler = logging.StreamHandler(sys.stderr)
    _logger.addHandler(handler)
    _logger.setLevel(logging.INFO)
    try:
        if arguments.cache_dir:
            os.environ["HF_HUB_CACHE"] = arguments.cache_dir  # read when the Hub's client is imported, and by children
        configure_process()
        return _export(arguments, dict(os.environ))
    except KeyboardInterrupt:
        return 130
    finally:
        _logger.removeHandler(handler)


def _parser() -> ArgumentParser:
    parser = ArgumentParser("hfexport.onnx", description="Exports a model to ONNX, as `transformers.onnx` did.")
    add = parser.add_argument
    add("-m", "--model", required=True, help="Model id on the Hub, or folder on disk to load the model from.")
    add("--feature", choices=TASK_NAMES, default="default", metavar="FEATURE", help=f"One of: {', '.join(TASK_NAMES)}.")
    add("--opset", type=int, help="ONNX opset version to export the model with.")
    add("--atol", type=_tolerance, help="Absolute difference tolerance when validating the model.")
    add(
        "--framework",
        choices=["pt", "tf"],
        help="Accepted for older scripts: the weights' format is detected, and the export uses PyTorch.",
    )
    add("output", type=Path, help="Path indicating where to store the generated ONNX model.")
    add("--cache_dir", help="Folder for downloads from the Hub.")
    add(
        "--preprocessor",
        choices=["auto", "tokenizer", "feature_extractor", "image_processor", "processor"],
        default="auto",
        help="Accepted for older scripts: hfexport generates the inputs itself.",
    )
    add("--export_with_transformers", action="store_true", help="Accepted for older scripts: has no effect.")
    return parser


def _tolerance(value: str) -> float:
    """Parse an absolute tolerance with hfexport's rules: NaN, infinite and negative values are refused."""
    try:
        return parsers.tolerance(value)
    except ValueError as error:
        raise ArgumentTypeError(f"{value!r} {error}") from error


def _export(arguments: Namespace, env: Mapping[str, str]) -> int:
    from hfexport.run.pipeline import Failed, run

    output: Path = arguments.output if arguments.output.is_file() else arguments.output / "model.onnx"
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(output.parent)
        with staging_folder(output.parent) as scratch:
            inputs = Inputs(
                model=arguments.model,
                formats=("onnx",),
                task=arguments.feature,
                output=str(scratch / "out"),
                opset=arguments.opset,
                atol=arguments.atol,
                layout="single",
            )
            manifest = run(inputs, _Log(), env, further_probes=older_probes)
            _log_validation(manifest, arguments.atol)
            saved = _put_in_place(scratch / "out" / "onnx", output)
    except Failed as failed:
        _log_validation(failed.manifest, arguments.atol)
        return _failed(failed.error)
    except OSError as error:
        return _failed(HfexportError(f"output {arguments.output}: {error.strerror}", remedy="Choose another folder."))
    except Exception as error:  # noqa: BLE001  the boundary of this command line
        return _failed(explain(error, arguments.model))
    _logger.info("All good, model saved at: %s", ",".join(path.as_posix() for path in saved))
    return 0


def _failed(error: HfexportError) -> int:
    _logger.error("%s: %s", error.title, error)
    return 1


def _put_in_place(made: Path, output: Path) -> list[Path]:
    """Move the graphs and their weight files beside `output`; a single graph gets the name of `output`."""
    from hfexport.backends.onnx.writer import move_model

    graphs = sorted(made.glob("*.onnx"))
    return [move_model(path, output if graphs == [path] else output.parent / path.name) for path in graphs]


def _log_validation(manifest: Manifest, asked: float | None) -> None:
    for artifact in manifest["artifacts"]:
        log_outputs(_logger, artifact["validation"], [entry["name"] for entry in artifact["outputs"]], asked)


class _Log:
    """Observer that writes the log lines of `transformers.onnx` and leaves out everything else."""

    def __init__(self) -> None:
        self._secrets: list[str] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        if name.startswith("Validation"):
            log_validating(_logger)
        yield

    @contextmanager
    def progress(self, name: str, total: int, *, unit: str = "") -> Iterator[Advance]:
        del name, total, unit
        yield _nothing

    def note(self, text: str) -> None:
        # `transformers.onnx` had no such lines, and scripts may parse its output.
        _logger.debug("%s", self.masked(text))

    def warn(self, text: str) -> None:
        _logger.warning("%s", self.masked(text))

    def mask(self, secret: str) -> None:
        self._secrets.append(secret)

    def child_output(self, lines: Iterable[str]) -> None:
        for line in lines:
            _logger.info("%s", self.masked(line))

    def masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _nothing(done: int) -> None:
    """Ignore progress."""


if __name__ == "__main__":
    sys.exit(main())
