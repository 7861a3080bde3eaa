"""Write validation results in the log format of `transformers.onnx`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hfexport.manifest.model import OutputEntry, ToleranceEntry, ValidationEntry

__all__ = ["log_outputs", "log_validating"]

OLDER_ATOL: Final = 1e-5
"""Default tolerance of `transformers.onnx` for most architectures."""


def log_validating(logger: logging.Logger) -> None:
    """Log that validation begins."""
    logger.info("Validating ONNX model...")


def log_outputs(
    logger: logging.Logger, validation: ValidationEntry, outputs: Sequence[str], asked: float | None = None
) -> None:
    """Log for every output whether its shapes and values match the model's.

    Args:
        logger: logger to write to.
        validation: validation entry of the manifest.
        outputs: output names, in the artifact's order.
        asked: absolute tolerance that the user gave, which the log then names; `None` for a default.
    """
    probes = [probe for probe in validation["probes"] if not probe["greedy_steps"]]
    if not validation["probes"] or any(not probe["outputs"] for probe in probes):
        problems = [probe["problem"] for probe in validation["probes"] if probe["problem"]]
        logger.info("\t-[x] %s", (problems or [validation["reason"]])[0])
        return
    # Pass a set as the older package did: scripts look for the line with its braces.
    logger.info("\t-[✓] ONNX model output names match reference model (%s)", set(outputs))
    for name in outputs:
        results = [output for probe in probes for output in probe["outputs"] if output["name"] == name]
        logger.info('\t- Validating ONNX Model output "%s":', name)
        for shape in dict.fromkeys(tuple(result["shape"]) for result in results):
            wrong = [result["problem"] for result in results if tuple(result["shape"]) == shape and _misshapen(result)]
            if wrong:
                logger.info("\t\t-[x] %s", wrong[0])
            else:
                logger.info("\t\t-[✓] %s matches %s", shape, shape)
        if validation["tolerance"] is not None:
            _log_values(logger, results, validation["tolerance"], asked)
    for probe in validation["probes"]:
        if probe["greedy_steps"] and probe["verdict"] == "passed":
            logger.info("\t-[✓] %d greedily decoded tokens are the model's", probe["greedy_steps"])


def _misshapen(result: OutputEntry) -> bool:
    return bool(result["problem"]) and result["max_abs"] is None


def _log_values(
    logger: logging.Logger,
    results: Sequence[OutputEntry],
    tolerance: ToleranceEntry,
    asked: float | None,
) -> None:
    compared = [result for result in results if not _misshapen(result)]
    atol, rtol = tolerance["atol"], tolerance["rtol"]
    largest = max((float(result["max_abs"]) for result in compared if result["max_abs"] is not None), default=0.0)
    # Name the strictest true statement: the older default if it holds, and rtol only if it is needed.
    absolute = min(OLDER_ATOL, atol) if asked is None and largest <= OLDER_ATOL else atol
    allowed = f"atol: {absolute}" if largest <= absolute or not rtol else f"atol: {absolute}, rtol: {rtol}"
    problems = [result["problem"] for result in compared if result["problem"]]
    if problems:
        logger.info("\t\t-[x] values not close enough (%s): %s", allowed, problems[0])
    elif compared:
        logger.info("\t\t-[✓] all values close (%s)", allowed)
