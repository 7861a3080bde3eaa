"""docs/coverage.md: what the last whole run of the grid proved, one row a case."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

from conformance.cases import CASES, GUIDE, Case
from tiny import MISSES

__all__ = ["coverage_page", "with_half_precision"]

_HALF_TITLE: Final = "## float16"

Results = Mapping[str, Mapping[str, Any]]


def coverage_page(results: Results, missing: Sequence[tuple[str, str]]) -> str:
    """The page in Markdown.

    Args:
        results: by name of the case.
        missing: pairs of the guide that no export config declares.
    """
    guide = [case for case in CASES if (case.model_type, case.task) in GUIDE and case.is_plain]
    variants = [case for case in CASES if not case.is_plain and case.dtype == "fp32"]
    half = [case for case in CASES if case.dtype == "fp16"]
    misses = [case for case in CASES if case.miss]
    beyond = [case for case in CASES if case not in (*guide, *variants, *misses, *half)]
    median = statistics.median(results[case.name]["seconds"] for case in guide)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "onnx", "onnxruntime"))
    introduction = (
        "# Coverage\n\n"
        "Written by `make conformance`. Every row is a tiny seeded checkpoint that went through the command line and passed\n"
        "strict validation (docs/validation.md) in each format; the number is the largest absolute difference from the\n"
        "model. `free` artifacts take any size within the limits; others hold the sizes named. A limit is a bound that the\n"
        "model's config sets, here the tiny one's; the manifest of an export states its own.\n\n"
        f"{versions}; Python {platform.python_version()}, {platform.machine()}; median {median:.1f} s for a\n"
        "pair of the guide: both formats, export and validation, as many side by side as the machine has cores."
    )
    parts = [
        introduction,
        f"## The pairs of `transformers.onnx` and its guide\n\n{len(guide)} of {len(GUIDE)}.\n\n"
        + _table(guide, results),
    ]
    if missing:
        parts.append("Not yet: " + ", ".join(f"{model_type} {task}" for model_type, task in missing) + ".")
    if beyond:
        parts.append("## Beyond the guide\n\n" + _table(beyond, results))
    if variants:
        parts.append(
            "## Variants\n\nConfig values that change the graph, encoder-decoders as one graph, and the ends of the range of opsets.\n\n"
            + _table(variants, results)
        )
    if misses:
        parts.append(
            "## Not exported\n\nEach is refused, with exit code 4 or 5, rather than exported wrongly. Models of timm (`timm_wrapper`) and\n"
            "backbones of timm need that package beside hfexport, and are refused by its name without it.\n\n"
            "| model type | why | what the run says |\n|---|---|---|\n"
            + "\n".join(
                f"| {case.model_type} | {MISSES[case.model_type][0]} | {_in_a_cell(results[case.name]['refusal'])} |"
                for case in sorted(misses, key=lambda case: case.model_type)
            )
        )
    return with_half_precision("\n\n".join(parts) + "\n", results)


def with_half_precision(page: str, results: Results) -> str:
    """Return the page with its last section, on half precision, written anew."""
    rows = ["| model type | task | ONNX | TorchScript |", "|---|---|---|---|"]
    refused = ["| model type | task | what the run says |", "|---|---|---|"]
    for case in sorted((case for case in CASES if case.dtype == "fp16"), key=lambda case: case.model_type):
        result = results[case.name]
        if result["refusal"]:
            refused.append(f"| {case.model_type} | {case.task} | {_in_a_cell(result['refusal'])} |")
            continue
        shares = {
            name: max(made["share"] for made in result["artifacts"] if made["format"] == name) for name in case.formats
        }
        rows.append(f"| {case.model_type} | {case.task} | {shares['onnx']:.2f} | {shares['torchscript']:.2f} |")
    introduction = (
        "Checkpoints in float16, exported in float16, one task of each architecture. The number is the largest difference\n"
        "from the float32 model as a share of the allowed one, which is four times that of the eager float16 model\n"
        "([validation.md](validation.md#half-precision))."
    )
    sections = [_HALF_TITLE, introduction, "\n".join(rows)]
    if len(refused) > 2:
        sections += [
            "Exit code 4, because the eager float16 model is itself too far from the float32 model, is not finite, or does not run:",
            "\n".join(refused),
        ]
    return page.partition(f"\n{_HALF_TITLE}\n")[0].rstrip("\n") + "\n\n" + "\n\n".join(sections) + "\n"


def _in_a_cell(text: str) -> str:
    """On one line, with nothing that ends a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _table(cases: Sequence[Case], results: Results) -> str:
    rows = ["| model type | task | ONNX | TorchScript | limits |", "|---|---|---|---|---|"]
    for case in sorted(cases, key=lambda case: (case.model_type, case.task)):
        result = results[case.name]
        formats = dict.fromkeys(artifact["format"] for artifact in result["artifacts"])
        cells = {name: _cell([made for made in result["artifacts"] if made["format"] == name]) for name in formats}
        changes = "".join(f", `{change}`" for change in case.said_changes)
        if case.layout != "auto":
            changes += f", layout `{case.layout}`"
        if case.opset is not None:
            changes += f", opset {case.opset}"
        limits = _limits({axis: limit for made in result["artifacts"] for axis, limit in made["limits"].items()})
        rows.append(
            f"| {case.model_type} | {case.task}{changes} | {cells['onnx']} | {cells.get('torchscript', '')} | {limits} |"
        )
    return "\n".join(rows)


def _cell(graphs: Sequence[Mapping[str, Any]]) -> str:
    """Sizes of every graph and the largest difference of all; graphs of free sizes are one word."""
    sizes = []
    for graph in graphs:
        fixed = graph["fixed_sizes"]
        name = f"{graph['graph']}: " if len(graphs) > 1 and fixed else ""
        sizes.append("free" if not fixed else name + ", ".join(f"{axis} {size}" for axis, size in fixed.items()))
    differences = [graph["max_abs"] for graph in graphs]
    return f"{'; '.join(dict.fromkeys(sizes))}; {max(differences):.1e}"


def _limits(limits: Mapping[str, Mapping[str, Any]]) -> str:
    bounds = []
    for axis, limit in limits.items():
        low, high = limit["minimum"], limit["maximum"]
        bounds.append(f"{axis} {low} to {high}" if high is not None else f"{axis} from {low}")
    return ", ".join(bounds)
