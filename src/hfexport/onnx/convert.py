"""`export` and `validate_model_outputs`: write a model in memory to an ONNX file, and compare the file with it."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfexport import __version__
from hfexport.errors import UnsupportedError, ValidationError
from hfexport.export_config import ExportConfig, Tolerance
from hfexport.export_config.probes import validation_probes
from hfexport.modeling.user_class import OnnxConfig
from hfexport.onnx.known import KnownOnnxConfig
from hfexport.onnx.log import log_outputs, log_validating
from hfexport.onnx.question import older_probes
from hfexport.run.output_folder import remove_abandoned, staging_folder

__all__ = ["OpsetError", "OutputsDifferError", "export", "validate_model_outputs"]

_logger = logging.getLogger("hfexport.onnx")


class OutputsDifferError(ValidationError, ValueError):
    """The file's outputs differ from the model's; a `ValueError`, as in `transformers.onnx`."""


class OpsetError(UnsupportedError, ValueError):
    """The opset is outside of the tested range; a `ValueError`, as in `transformers.onnx`."""


def export(
    preprocessor: Any,
    model: Any,
    config: OnnxConfig,
    opset: int,
    output: Path | str,
    tokenizer: Any = None,
) -> tuple[list[str], list[str]]:
    """Write `model` with its current weights to an ONNX file.

    Args:
        preprocessor: tokenizer or processor; used only for inputs that hfexport cannot generate itself.
        model: a `PreTrainedModel`; it is not changed.
        config: config that names the inputs and outputs.
        opset: ONNX opset.
        output: path of the file. Weights of more than 2 GB are written beside it, to its name with `_data` appended.
        tokenizer: older name of `preprocessor`.

    Returns:
        Names of the inputs and outputs, in the file's order.

    Raises:
        InputsError: `config` contradicts itself or does not fit the model.
        UnsupportedError: the architecture does not have this task or opset.
        ExportError: the model cannot be converted to ONNX.
    """
    from hfexport.backends.base import ExportJob
    from hfexport.backends.onnx.backend import OnnxBackend
    from hfexport.backends.onnx.writer import move_model
    from hfexport.modeling.load import plain
    from hfexport.modeling.user_class.properties import config_values

    preprocessor, output = _chosen(preprocessor, tokenizer), Path(output)
    metadata = {"producer": "hfexport", "version": __version__, "source": type(model).__name__, "task": config.task}
    with ExitStack() as stack:
        stack.enter_context(plain(model, config_values(config, type(config).__qualname__)))
        interface = _export_config(config, model, preprocessor)
        low, high = interface.opsets
        if not low <= opset <= high:
            raise OpsetError(f"opset {opset} is out of range", remedy=f"Use {low} to {high}.")
        output.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(output.parent)
        staging = stack.enter_context(staging_folder(output.parent))
        job = ExportJob(Path(), interface, _dtype(model), staging, metadata)
        artifact = OnnxBackend(opset, model=model).export(job)
        move_model(artifact.path, output)
    return [spec.name for spec in interface.inputs], [spec.name for spec in interface.outputs]


def validate_model_outputs(
    config: OnnxConfig,
    preprocessor: Any,
    reference_model: Any,
    onnx_model: Path | str,
    onnx_named_outputs: Sequence[str],
    atol: float,
    tokenizer: Any = None,
    *,
    rtol: float = 0.0,
) -> None:
    """Compare an ONNX file with its model, at sizes, paddings and values that the export did not use.

    Args:
        config: as for `export`.
        preprocessor: as for `export`.
        reference_model: the model; it runs in eval mode with eager attention, and is not changed.
        onnx_model: path of the file; a child process runs it.
        onnx_named_outputs: names of outputs that the file must have.
        atol: absolute tolerance.
        tokenizer: older name of `preprocessor`.
        rtol: relative tolerance; 0 unless given.

    Raises:
        OutputsDifferError: the file's outputs differ from the model's.
        ValueError: a tolerance is negative or not finite.
    """
    from hfexport.backends.base import Artifact
    from hfexport.manifest.results import validation_entry
    from hfexport.modeling.load import plain
    from hfexport.modeling.user_class.properties import config_values
    from hfexport.validation import Reference, timeout_for, validate
    from hfexport.validation.reference.worker import answer_probes

    tolerance = Tolerance(atol, rtol)
    path, dtype = Path(onnx_model), _dtype(reference_model)
    values = config_values(config, type(config).__qualname__)
    with plain(reference_model, values):
        interface = _export_config(config, reference_model, _chosen(preprocessor, tokenizer))
    probes = (*older_probes(interface), *validation_probes(interface))
    log_validating(_logger)
    declared = [spec.name for spec in interface.outputs]
    if unknown := [name for name in onnx_named_outputs if name not in declared]:
        _logger.info(
            "\t-[x] ONNX model output names %s do not match reference model %s", set(onnx_named_outputs), set(declared)
        )
        raise OutputsDifferError(
            f"{path}: outputs {', '.join(unknown)} are not among the model's {', '.join(declared)}"
        )
    with tempfile.TemporaryDirectory(prefix="hfexport-") as scratch:
        folder, start = Path(scratch), time.monotonic()
        with plain(reference_model, values):
            answer_probes(reference_model, interface, probes, dtype, folder / "reference")
        reference = Reference(_Answered(time.monotonic() - start), probes, dtype, folder / "reference")
        files = tuple(file for file in (path, path.with_name(f"{path.name}_data")) if file.is_file())
        artifact = Artifact("onnx", path, files)
        verdict = validate(
            artifact,
            interface,
            reference,
            tolerance,
            folder=folder / "run",
            env=dict(os.environ),
            timeout_s=timeout_for(sum(file.stat().st_size for file in files)),
        )
        shutil.rmtree(folder / "reference")
    log_outputs(_logger, validation_entry(verdict), declared, atol)
    if verdict.verdict != "passed":
        raise OutputsDifferError("\n".join((*verdict.failures[:5],)) or verdict.reason)


@dataclass(frozen=True)
class _Answered:
    """Reference outputs that were computed in this process, which holds the model in memory."""

    wall_s: float

    def result(self, timeout_s: float | None = None) -> dict[str, Any]:
        del timeout_s
        return {"wall_s": round(self.wall_s, 3), "peak_rss_bytes": 0}

    def stop(self) -> None:
        """Do nothing, since no process runs."""


def _export_config(config: OnnxConfig, model: Any, preprocessor: Any) -> ExportConfig:
    """Return the export config for `config`; for a class with its own inputs or outputs, one that it describes."""
    from hfexport.modeling.inferred.dry_run import DryModel
    from hfexport.modeling.inferred.measure import image_shape
    from hfexport.modeling.load import empty_like
    from hfexport.modeling.user_class.adapt import declare, overrides

    if isinstance(config, KnownOnnxConfig) and not any(
        overrides(type(config), field) for field in ("inputs", "outputs", "generate_dummy_inputs")
    ):
        return config.export_config
    dry = DryModel(lambda mode: empty_like(model, mode), lambda: model)
    images = image_shape(model.config, {})
    described = declare(config, type(config).__qualname__, dry, lambda: preprocessor, images=images)
    return described.graphs("single")[0]


def _chosen(preprocessor: Any, tokenizer: Any) -> Any:
    if tokenizer is not None:
        warnings.warn("`tokenizer` is the older name of this argument: use `preprocessor`", FutureWarning, stacklevel=3)
    return preprocessor if tokenizer is None else tokenizer


def _dtype(model: Any) -> str:
    name = str(model.dtype).removeprefix("torch.")
    if name not in ("float32", "float16"):
        raise UnsupportedError(f"the model is {name}", remedy="Convert it first: model.float().")
    return "fp32" if name == "float32" else "fp16"
