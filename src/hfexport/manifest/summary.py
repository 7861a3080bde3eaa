"""Job summary and terminal table, made from the manifest alone."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

from hfexport._internal.sizes import size_text
from hfexport.export_config import TOLERANCE_CAP, names_in
from hfexport.manifest.mermaid import mermaid_charts
from hfexport.manifest.model import ArtifactEntry, Manifest
from hfexport.manifest.speed import described, skipped, speed_tables
from hfexport.manifest.variants import VARIANT_COLUMNS, variant_rows

__all__ = ["TABLE_COLUMNS", "headline", "job_summary", "load_snippet", "speed_section", "table_rows"]

TABLE_COLUMNS = ("format", "file", "size", "shapes", "verdict", "max abs diff", "of tolerance", "probes passed")

HEADLINES = {
    "passed": "✅ every artifact answers as the model does",
    "incomplete": "⚠️ every check that could be run passed; some could not be run",
    "failed": "❌ an artifact does not answer as the model does",
    "not_validated": "⚠️ artifacts were written without validation",
    "error": "❌ nothing was exported",
}

UNPUBLISHED = "❌ artifacts were made, but not published"

MAX_FAILURES = 20


def table_rows(manifest: Manifest) -> list[list[str]]:
    """Return one row for each artifact, with the columns `TABLE_COLUMNS`."""
    rows = []
    for artifact in manifest["artifacts"]:
        validation = artifact["validation"]
        probes = validation["probes"]
        passed = sum(probe["verdict"] == "passed" for probe in probes)
        fixed = artifact["fixed_sizes"]
        shapes = "free" if fixed is None else "fixed: " + ", ".join(f"{axis} {size}" for axis, size in fixed.items())
        rows.append(
            [
                artifact["format"],
                artifact["path"],
                size_text(sum(file["size_bytes"] for file in artifact["files"])),
                shapes,
                validation["verdict"].replace("_", " "),
                _number(validation["max_abs_diff"]),
                _percent(validation.get("tolerance_share")),
                f"{passed} of {len(probes)}",
            ]
        )
    return rows


def headline(manifest: Manifest) -> str:
    """Return the verdict in one sentence."""
    published = manifest["error"] is None or manifest["verdict"] in ("failed", "error")
    return HEADLINES[manifest["verdict"]] if published else UNPUBLISHED


def job_summary(manifest: Manifest) -> str:
    """Write the job summary in Markdown: verdict, table, failures, a snippet for each artifact, and the stages."""
    lines = [f"## hfexport: {headline(manifest)}", ""]
    if manifest["error"] is not None:
        error = manifest["error"]
        lines += [f"**{_text(error['title'])}** (exit code {error['exit_code']})", ""]
        lines += [f"> {_text(line)}" for line in (error["message"] + "\n" + error["remedy"]).splitlines() if line]
        lines.append("")
    if manifest["source"] is not None:
        source = manifest["source"]
        parts = [source["model"], source["model_type"], f"task {manifest['task']}", f"dtype {manifest['dtype']}"]
        lines += [_text(" · ".join(parts)), ""]
    lines += _publication(manifest)
    if manifest["artifacts"]:
        lines += [_row(TABLE_COLUMNS), _row(["---"] * len(TABLE_COLUMNS))]
        lines += [_row([_text(cell) for cell in row]) for row in table_rows(manifest)]
        lines.append("")
    lines += _variants(manifest)
    lines += speed_section(manifest)
    lines += _failures(manifest)
    lines += _checks(manifest)
    lines += _coverage(manifest)
    if manifest["verdict"] in ("passed", "incomplete", "not_validated"):
        for artifact in manifest["artifacts"]:
            lines += ["```python", load_snippet(artifact, manifest).rstrip(), "```", ""]
    if charts := mermaid_charts(manifest):
        lines += ["<details><summary>Charts</summary>", ""]
        lines += [line for chart in charts for line in (chart, "")] + ["</details>", ""]
    lines += _stages(manifest)
    return "\n".join(lines) + "\n"


def _variants(manifest: Manifest) -> list[str]:
    """List the variants, the measures that are outside of their limits, and remarks."""
    entries = manifest.get("variants", [])
    if not entries:
        return []
    lines = [_row(VARIANT_COLUMNS), _row(["---"] * len(VARIANT_COLUMNS))]
    lines += [_row([_text(cell) for cell in row]) for row in variant_rows(manifest)]
    lines += ["", _text(f"Measured on {entries[0]['quality']['data'] or 'nothing'}."), ""]
    for entry in entries:
        quality = entry["quality"]
        failed = [measure for measure in quality["measures"] if measure["verdict"] == "failed"]
        said = [quality["reason"]] if quality["reason"] else []
        said += [f"{measure['graph']}: {measure['name']} {_number(measure['value'])}: failed" for measure in failed]
        lines += [f"- {_text(entry['name'])}: {_text(line)}" for line in (*said, *entry["notes"])]
    return [*lines, ""]


def speed_section(manifest: Manifest) -> list[str]:
    """Return tables of the measured latency, and what was not measured."""
    benchmark = manifest.get("benchmark")
    if not benchmark:
        return []
    lines = [_text(described(benchmark)), ""]
    for table in speed_tables(benchmark):
        lines += [_row(map(_text, table.columns)), _row(["---"] * len(table.columns))]
        lines += [*(_row(map(_text, row)) for row in table.rows), ""]
    left_out = [f"- Not measured: {_text(line)}" for line in skipped(benchmark)]
    return [*lines, *left_out, *([""] if left_out else [])]


def _checks(manifest: Manifest) -> list[str]:
    """List the additional checks and their results, with reasons."""
    lines = []
    for artifact in manifest["artifacts"]:
        for check in artifact["validation"]["checks"]:
            reason = f": {check['reason']}" if check["reason"] else ""
            verdict = check["verdict"].replace("_", " ")
            lines.append(f"- {artifact['format']}, {_text(check['name'])}: **{verdict}**{_text(reason)}")
    return [*lines, ""] if lines else []


def loose_lines(artifacts: list[ArtifactEntry]) -> list[str]:
    """List the artifacts that were compared within a loose tolerance, with the tolerance."""
    lines = []
    for artifact in artifacts:
        validation = artifact["validation"]
        if validation.get("loose_tolerance") and validation["tolerance"] is not None:
            atol, rtol = validation["tolerance"]["atol"], validation["tolerance"]["rtol"]
            lines.append(
                f"- ⚠️ {_text(artifact['path'])}: compared within a loose tolerance, {atol:g} + {rtol:g} times the model's value;"
                f" above {TOLERANCE_CAP:g}, a passed artifact may still be wrong"
            )
    return lines


def _coverage(manifest: Manifest) -> list[str]:
    """List up to which sizes each artifact was validated, and which outputs of the model were not compared."""
    lines = []
    for artifact in manifest["artifacts"]:
        validation = artifact["validation"]
        lines += loose_lines([artifact])
        sizes = validation.get("validated_up_to", {})
        if sizes and validation["verdict"] in ("passed", "incomplete"):
            asked = ", ".join(f"{axis} {size}{_beyond(artifact, axis, size)}" for axis, size in sizes.items())
            lines.append(f"- {_text(artifact['path'])}: validated up to {_text(asked)}")
        if unasked := validation.get("unasked_thresholds"):
            windows = ", ".join(f"{name} {size}" for name, size in unasked.items())
            lines.append(
                f"- {_text(artifact['path'])}: no probe is longer than {_text(windows)}, above which the model computes"
                " differently"
            )
        if left_out := validation.get("left_out"):
            lines.append(
                f"- {_text(artifact['path'])}: not among its outputs, not compared: {_text(', '.join(left_out))}"
            )
    return [*lines, ""] if lines else []


def _beyond(artifact: ArtifactEntry, axis: str, size: int) -> str:
    """Return the largest size that the artifact accepts, if no probe reaches it."""
    limit = artifact["limits"].get(axis)
    maximum = None if limit is None else limit["maximum"]
    return f" of {maximum}" if maximum is not None and maximum > size else ""


def load_snippet(artifact: ArtifactEntry, manifest: Manifest) -> str:
    """Return Python code that loads the artifact from the output folder and runs it on zeros of a small shape."""
    del manifest
    if artifact["format"] == "neuron":
        return _neuron_snippet(artifact)
    sizes = artifact["fixed_sizes"] or {}
    inputs = _example_inputs(artifact, lambda axis: sizes.get(axis, _example_size(axis)))
    if artifact["format"] == "onnx":
        return (
            "import numpy as np\nfrom onnxruntime import InferenceSession\n\n"
            f"session = InferenceSession({artifact['path']!r})\n"
            f"inputs = {inputs}\n"
            "outputs = session.run(None, inputs)\n"
        )
    return (
        "import numpy as np\nimport torch\n\n"
        f"model = torch.jit.load({artifact['path']!r})\n"
        f"inputs = {inputs}\n"
        "outputs = model(*map(torch.from_numpy, inputs.values()))\n"
    )


def _neuron_snippet(artifact: ArtifactEntry) -> str:
    """Return code that uses the runtime in the artifact, which pads inputs, cuts outputs and generates text."""
    parts = artifact["details"]["parts"]
    sizes, pads = parts[0]["fixed_sizes"], parts[0]["pad_values"].values()
    inputs = _example_inputs(artifact, lambda axis: _shorter(axis, sizes.get(axis), padded=None not in pads))
    if len(parts) > 1:
        imports, how = "import numpy as np\nimport torch\n", "up to this many tokens are read and written"
        sizes = {axis: size for part in parts for axis, size in part["fixed_sizes"].items() if axis != "batch"}
        use = "tokens = model.generate(**{name: torch.from_numpy(array) for name, array in inputs.items()})"
    else:
        imports, how = "import numpy as np\n", "inputs are padded to this, outputs cut back"
        use = "outputs = model(**inputs)"
    shape = ", ".join(f"{axis} {size}" for axis, size in sizes.items())
    return (
        f"import sys\n{imports}\n"
        "sys.path.insert(0, 'neuron')\n"
        "from hfexport_neuron import load\n\n"
        "model = load('neuron')  # on an instance with the device\n"
        f"inputs = {inputs}\n"
        f"{use}{f'  # {how}: {shape}' if shape else ''}\n"
    )


def _shorter(axis: str, fixed: int | None, *, padded: bool) -> int:
    """Return a size below the fixed one if the runtime pads this axis, else the fixed size."""
    small = _example_size(axis)
    if fixed is None:
        return small
    paddable = axis in ("batch", "choice") or (axis.endswith("sequence") and padded)
    return min(small, fixed) if paddable else fixed


def _example_inputs(artifact: ArtifactEntry, size_of: Callable[[str], int]) -> str:
    """Return Python code of a dictionary of arrays."""
    arrays = []
    for entry in artifact["inputs"]:
        shape = tuple(axis if isinstance(axis, int) else sum(map(size_of, names_in(axis))) for axis in entry["axes"])
        make = "ones" if entry["name"].endswith("attention_mask") else "zeros"
        arrays.append(f"{entry['name']!r}: np.{make}({shape}, np.{entry['dtype']})")
    return f"{{{', '.join(arrays)}}}"


def _publication(manifest: Manifest) -> list[str]:
    """Say what was published or would be."""
    publication = manifest["publication"]
    if publication is None:
        return []
    place = f"{publication['repository']}, branch {publication['branch']}"
    url = publication["pull_request_url"] or publication["commit_url"]
    said = {
        "committed": f"Published to {place}",
        "pull_request": f"Published as a pull request against {place}",
        "nothing_to_do": f"Nothing to do: {place} holds this export already",
        "dry_run": f"Dry run: nothing was published to {place}",
    }[publication["state"]]
    lines = [f"{_text(said)}{f': <{url}>' if url else '.'}", ""]
    if publication["state"] == "dry_run":
        rows = [[change["operation"], _text(change["path"])] for change in publication["operations"]]
        lines += [_row(["operation", "file"]), _row(["---"] * 2), *map(_row, rows), ""]
    return lines


def _example_size(axis: str) -> int:
    """Choose a small size for a free axis by its name."""
    if axis.startswith("past_"):
        return 0
    return 8 if axis.endswith("sequence") else {"choice": 2, "height": 224, "width": 224}.get(axis, 1)


def _failures(manifest: Manifest) -> list[str]:
    found: list[str] = []
    for artifact in manifest["artifacts"]:
        validation = artifact["validation"]
        if validation["verdict"] == "failed" and validation["reason"]:
            found.append(f"{artifact['format']}: {validation['reason']}")
        if any(check["verdict"] == "failed" for check in validation["checks"]):
            continue  # listed with the checks
        for probe in validation["probes"]:
            if probe["problem"]:
                found.append(f"{artifact['format']}, {probe['name']}: {probe['problem']}")
            found += [
                f"{artifact['format']}, {probe['name']}: {output['name']}: {output['problem']}"
                for output in probe["outputs"]
                if output["problem"]
            ]
    lines = [f"- {_text(line)}" for line in found[:MAX_FAILURES]]
    if len(found) > MAX_FAILURES:
        lines.append(f"- and {len(found) - MAX_FAILURES} more, in the manifest")
    return [*lines, ""] if lines else []


def _stages(manifest: Manifest) -> list[str]:
    if not manifest["stages"]:
        return []
    lines = ["<details><summary>Stages</summary>", "", _row(["stage", "seconds", "peak memory"]), _row(["---"] * 3)]
    for stage in manifest["stages"]:
        memory = size_text(stage["peak_memory_bytes"]) if stage["peak_memory_bytes"] else "not known"
        lines.append(_row([_text(stage["name"]), f"{stage['seconds']:.1f}", memory]))
    return [*lines, "", "</details>"]


def _row(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def _text(text: str) -> str:
    """Escape text from outside, so that Markdown and HTML show it literally."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{char}" if char in "\\`*_[]|~" else char for char in escaped)


def _percent(share: float | str | None) -> str:
    return f"{100 * share:.2g} %" if isinstance(share, float | int) and share < 1 else _times(share)


def _times(share: float | str | None) -> str:
    return f"{share:.2g} times" if isinstance(share, float | int) else _number(share)


def _number(value: float | str | None) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.2g}"
