"""docs/performance.md from the results: tables, ratios against the goals, versions and machine."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cases import CASES, Case
from comparison import Entry
from latency import SHAPES, THREADS
from peers import CONTENDERS, REFERENCE
from stage_tables import stages_section
from variants import GOALS as VARIANT_GOALS

__all__ = ["GOALS", "Goal", "page", "ratio"]

MEBIBYTE: Final = 2**20
COLD: Final = "hfexport cold"
WARM: Final = "hfexport warm"


@dataclass(frozen=True)
class Goal:
    """A ratio that hfexport is to reach in one case.

    Attributes:
        case: name of the case.
        contender: which of hfexport's two.
        peer: contender that the ratio is taken to.
        field: field of `Entry`.
        limit: largest ratio that meets the goal.
    """

    case: str
    contender: str
    peer: str
    field: str
    limit: float


GOALS: Final = (
    Goal("bert-base", COLD, REFERENCE, "wall_s", 0.70),
    Goal("minilm", COLD, REFERENCE, "wall_s", 0.70),
    Goal("gpt2", COLD, REFERENCE, "wall_s", 0.80),
    Goal("llama-125m", COLD, REFERENCE, "wall_s", 0.80),
    Goal("bert-base", WARM, REFERENCE, "wall_s", 0.40),
    Goal("minilm", WARM, REFERENCE, "wall_s", 0.40),
    Goal("gpt2", WARM, REFERENCE, "wall_s", 0.40),
    Goal("llama-125m", WARM, REFERENCE, "wall_s", 0.40),
    Goal("llama-1.1b", COLD, REFERENCE, "wall_s", 0.50),
    Goal("llama-1.1b", WARM, REFERENCE, "wall_s", 0.35),
    Goal("bert-base", COLD, "transformers.onnx", "wall_s", 1.0),
    *(Goal(case.name, COLD, REFERENCE, "peak_bytes", 0.5) for case in CASES),
)
_UNITS: Final = {"wall_s": "wall time", "processor_s": "processor time", "peak_bytes": "peak memory"}


def ratio(entries: Mapping[str, Entry], contender: str, peer: str, field: str) -> float | None:
    """Return the median over the runs of the ratio of two contenders, or `None` without figures of one call."""
    ours, theirs = entries.get(contender, Entry()), entries.get(peer, Entry())
    if "failed" in ours or "failed" in theirs or not ours or not theirs or ours["call"] != theirs["call"]:
        return None
    a, b = ours.get(field), theirs.get(field)
    if isinstance(a, list) and isinstance(b, list):
        return statistics.median(x / y for x, y in zip(a, b, strict=True)) if a else None
    return a / b if isinstance(a, int) and isinstance(b, int) and b else None


def page(results: Mapping[str, Any]) -> str:
    """Return the whole document."""
    parts = [_heading(results), _versions(results.get("context", {}))]
    comparison: Mapping[str, Mapping[str, Entry]] = results.get("comparison", {})
    if comparison:
        parts += ["## Export", _EXPORT, _goals(comparison), _CHART]
        parts += [_case(case, comparison[case.name]) for case in CASES if case.name in comparison]
    for name, render in _SECTIONS.items():
        if name in results:
            parts.append(render(results[name]))
    return "\n\n".join(part for part in parts if part) + "\n"


_EXPORT: Final = (
    "Every contender exports the same checkpoint in turn. One run of each, which is not counted, has its memory sampled over "
    "the whole process tree: memory shared by processes counts once. The figures of the other runs are medians; a ratio is the "
    "median of the ratios of runs that followed each other. Wall time is that of the whole process, with its start and its "
    "validation. *hfexport warm* is a run with `cache` that finds its [graph template](cache.md). All write float32."
)
_CHART: Final = "![Wall time of each exporter as a ratio to that of optimum-cli, by case](images/performance.svg)"


def _heading(results: Mapping[str, Any]) -> str:
    context = results.get("context", {})
    lines = [
        "# Performance",
        "",
        "Written by `make bench` from benchmarks/results.json. Ratios below 1 mean that hfexport needs less.",
    ]
    if machine := context.get("machine"):
        memory = machine["memory_bytes"] / 2**30
        text = (
            f"- machine: {machine['architecture']}, {machine['cores']} cores ({machine['processor']}), {memory:.0f} GiB"
        )
        lines += ["", text, *_sources(results.get("sources", {}))]
    return "\n".join(lines)


def _sources(sources: Mapping[str, str]) -> list[str]:
    trees = sorted(set(sources.values()))
    if len(trees) <= 1:
        return [f"- sources: Git tree `{tree}` of `src`" for tree in trees]
    parts = (f"`{tree}` ({', '.join(name for name, one in sources.items() if one == tree)})" for tree in trees)
    return [f"- sources, as Git trees of `src`: {'; '.join(parts)}"]


def _versions(context: Mapping[str, Any]) -> str:
    rows = []
    for contender in CONTENDERS:
        found = context.get("versions", {}).get(contender.name)
        text = ", ".join(f"{name} {number}" for name, number in sorted(found.items())) if found else "not installed"
        rows.append(f"| {contender.name} | {contender.validates} | {text} |")
    return _table(("exporter", "validates", "versions"), rows) if context else ""


def _goals(comparison: Mapping[str, Mapping[str, Entry]]) -> str:
    rows = []
    for goal in GOALS:
        if goal.case not in comparison:
            continue
        found = ratio(comparison[goal.case], goal.contender, goal.peer, goal.field)
        verdict = "no figure" if found is None else "yes" if found <= goal.limit else "no"
        text = "" if found is None else f"{found:.2f}"
        what = f"{goal.contender}, {_UNITS[goal.field]} to {goal.peer}"
        rows.append(f"| {goal.case} | {what} | {text} | {goal.limit:.2f} | {verdict} |")
    return "### Goals\n\n" + _table(("case", "ratio of", "measured", "goal", "reached"), rows)


def _case(case: Case, entries: Mapping[str, Entry]) -> str:
    rows = []
    for contender in CONTENDERS:
        entry = entries.get(contender.name)
        if entry is None:
            rows.append(f"| {contender.name} | not measured | | | | |")
        elif "failed" in entry:
            rows.append(f"| {contender.name} | failed: {_cell(entry['failed'])} | | | | |")
        else:
            rows.append(_entry_row(contender.name, entry, entries))
    runs = max((len(entry.get("wall_s", [])) for entry in entries.values()), default=0)
    counted = "One run" if runs == 1 else f"Medians of {runs} runs"
    heads = ("", "wall, s", "ratio", "processor, s", "peak memory, MiB", "ratio")
    return f"### {case.title}\n\n{_table(heads, rows)}\n\n{counted}; ratios to {REFERENCE}."


def _entry_row(name: str, entry: Entry, entries: Mapping[str, Entry]) -> str:
    def text(field: str) -> str:
        found = ratio(entries, name, REFERENCE, field)
        return "" if found is None else f"{found:.2f}"

    wall, processor = (statistics.median(entry[field]) if entry[field] else 0.0 for field in ("wall_s", "processor_s"))
    peak = entry["peak_bytes"] / MEBIBYTE
    return f"| {name} | {wall:.1f} | {text('wall_s')} | {processor:.1f} | {peak:.0f} | {text('peak_bytes')} |"


_SCALING: Final = (
    "## Cost by layers and size\n\nhfexport alone, without a cache. The speed of writing is that of a further run with `cache`, in "
    "which the step of export only writes weights; a plain copy is one of the same file to the same disk. The goal is half its "
    "speed."
)


def _scaling(rows: Sequence[Mapping[str, Any]]) -> str:
    texts = {"layers": "By layers: BERT, 256 wide.", "sizes": "By size of the model."}
    parts = [_SCALING]
    for table, title in texts.items():
        found = [row for row in rows if row["table"] == table]
        heads = ["weights, MB", "wall, s", "processor, s", "peak memory, MiB"]
        if table == "sizes":
            heads += ["weights written, MB/s", "plain copy, MB/s", "ratio"]
        first = "layers" if table == "layers" else "model"
        parts += [title, _table((first, *heads), [_scaling_row(row, len(heads)) for row in found])]
    layers = [(int(row["name"]), row["wall_s"]) for row in rows if row["table"] == "layers" and "failed" not in row]
    if len(layers) > 2:
        fit = statistics.linear_regression([x for x, _ in layers], [y for _, y in layers])
        correlation = statistics.correlation([x for x, _ in layers], [y for _, y in layers])
        parts.append(
            f"A line through the wall times has {fit.slope:.2f} s for each layer and {fit.intercept:.1f} s besides; its "
            f"coefficient of determination is {correlation**2:.3f}."
        )
    return "\n\n".join(parts)


def _scaling_row(row: Mapping[str, Any], columns: int) -> str:
    cells = [str(row["name"]), f"{row['size_bytes'] / 1e6:.0f}"]
    if "failed" in row:
        cells += [f"failed: {_cell(row['failed'])}"]
    else:
        cells += [f"{row['wall_s']:.1f}", f"{row['processor_s']:.1f}", f"{row['peak_bytes'] / MEBIBYTE:.0f}"]
        written, copied = row["written_bytes_per_s"], row["copied_bytes_per_s"]
        cells += [f"{written / 1e6:.0f}", f"{copied / 1e6:.0f}", f"{written / copied:.2f}"]
    return f"| {' | '.join([*cells, *[''] * columns][: columns + 1])} |"


def _latency(found: Mapping[str, Any]) -> str:
    title = (
        "## Latency\n\n"
        f"all-MiniLM-L6-v2 as plain ONNX in ONNX Runtime on CPU, {THREADS} threads, each artifact in its own process, "
        "by (batch, sequence).\n\n"
    )
    if "failed" in found:
        return title + f"Not measured: {found['failed']}"
    ours, theirs = found["milliseconds"][COLD], found["milliseconds"][REFERENCE]
    rows = []
    for index, (batch, sequence) in enumerate(SHAPES):
        left, right = [run[index] for run in ours], [run[index] for run in theirs]
        middle = statistics.median(a / b for a, b in zip(left, right, strict=True))
        medians = f"{statistics.median(left):.2f} | {statistics.median(right):.2f} | {middle:.2f}"
        rows.append(f"| ({batch}, {sequence}), ms | {medians} |")
    return title + _table(("", "hfexport", REFERENCE, "ratio"), rows)


def _variants(found: Mapping[str, Any]) -> str:
    parts = [
        "## Variants",
        (
            f"ONNX Runtime on CPU, {THREADS} threads, each file in its own process, by (batch, sequence, past). all-MiniLM-L6-v2, and "
            "a llama with random weights; medians in ms. PyTorch runs with `sdpa` attention."
        ),
    ]
    for case, row in found.items():
        times: Mapping[str, list[list[float]]] = row["milliseconds"]
        heads = (case, *(f"({', '.join(map(str, call))})" for call in row["calls"]))
        lines = [
            _figures(name, [statistics.median(run) for run in zip(*runs, strict=True)]) for name, runs in times.items()
        ]
        lines += [f"| {name} | failed: {_cell(why)} |" + " |" * (len(heads) - 2) for name, why in row["failed"].items()]
        parts.append(_table(heads, lines))
        ratios = []
        for name, peer, limit in VARIANT_GOALS[case]:
            if name in times and peer in times:
                runs = list(zip(times[name], times[peer], strict=True))
                pairs = [[a / b for a, b in zip(ours, theirs, strict=True)] for ours, theirs in runs]
                medians = [statistics.median(one) for one in zip(*pairs, strict=True)]
                ratios.append(_figures(f"{name} to {peer}, goal at most {limit}", medians))
        parts.append(_table((f"{case}, ratios", *heads[1:]), ratios) if ratios else "")
    return "\n\n".join(part for part in parts if part)


def _figures(name: str, numbers: Sequence[float]) -> str:
    return f"| {name} | {' | '.join(f'{number:.2f}' for number in numbers)} |"


def _startup(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"| {row['name']} | {row['wall_s']:.2f} | {row['goal_s']:.1f} |" for row in rows if "goal_s" in row]
    text = "## Start-up\n\n" + _table(("", "median, s", "goal, s"), lines)
    imports = [f"| {row['name']} | {row['wall_s']:.2f} | {row['cold_s']:.2f} |" for row in rows if "cold_s" in row]
    if not imports:
        return text
    return (
        f"{text}\n\nNew interpreters, with packages in the page cache (warm) and dropped from it before (cold), as on a "
        "machine that has just pulled the image:\n\n" + _table(("", "warm, s", "cold, s"), imports)
    )


def _copying(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"| {row['name']} | {row['wall_s']:.2f} | {row['processor_s']:.2f} |" for row in rows]
    return (
        "## Writing weights\n\n"
        "1 GiB in the page cache. Weights that need no conversion are written from their mapping in the checkpoint: "
        "`copy_file_range` saves nothing measurable. Safetensors aligns tensors to "
        "8 bytes and TorchScript to 64, so a file system cannot share their blocks (reflinks) either. Each byte is read again "
        "for the SHA-256 in the manifest, which is computed during validation.\n\n"
        + _table(("", "wall, s", "processor, s"), lines)
    )


def _large(row: Mapping[str, Any]) -> str:
    title = "## Memory limit\n\n"
    if "failed" in row:
        return f"{title}{row['failed']}"
    return (
        f"{title}In a memory cgroup of {row['limit_bytes'] / 1e9:.1f} GB, a float32 BERT of {row['size_bytes'] / 1e9:.2f} GB in "
        f"shards, none of it in the page cache, exports to ONNX: verdict {row['verdict']}, {row['wall_s']:.0f} s, at most "
        f"{row['peak_anonymous_bytes'] / MEBIBYTE:.0f} MiB of anonymous memory over all processes."
    )


def _half(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for row in rows:
        if "failed" in row:
            lines.append(f"| {row['artifact']} | failed: {_cell(row['failed'])} | |")
        else:
            peak = row["peak_anonymous_bytes"] / MEBIBYTE
            quality = (f"{name.replace('_', ' ')} {value:.3g}" for name, value in row.get("quality", {}).items())
            said = "; ".join([row["verdict"], *quality])
            lines.append(f"| {row['artifact']} | {said} | {peak:.0f} |")
    size, limit = rows[0].get("size_bytes", 0) / 1e9, rows[0]["limit_bytes"] / 1e9
    return (
        "## Half precision in bounded memory\n\n"
        f"A bfloat16 llama of {size:.2f} GB in shards, in a memory cgroup of {limit:.1f} GB, none of it in the page cache. "
        "Anonymous memory is that of all processes together.\n\n"
        + _table(("artifact", "verdict", "anonymous memory, MiB"), lines)
    )


def _image(found: Mapping[str, Any]) -> str:
    title = "## Image\n\n"
    if "failed" in found:
        return f"{title}Not measured: {found['failed']}"
    layers, packages = found["layers"], found["packages"]
    total, packed = (sum(layer[key] for layer in layers) for key in ("bytes", "compressed_bytes"))
    rows = [f"| {row['name']} | {row['bytes'] / 1e6:.1f} |" for row in packages]
    sizes = [(layer["holds"], layer["bytes"] / 1e6, layer["compressed_bytes"] / 1e6) for layer in layers]
    return (
        f"{title}The image without the Neuron SDK for {found['architecture']}, without its base: {total / 1e9:.2f} GB "
        f"unpacked (goal: 1.0), {packed / 1e6:.0f} MB compressed. It has {found['compiled']} files of bytecode for "
        f"{found['modules']} modules: nothing is compiled when it starts. A release that changes only hfexport is a pull of "
        "the last layer: all files have the same time and bytecode is made in one order, so that the same packages are the "
        "same layers.\n\n"
        + _table(
            ("layer", "unpacked, MB", "compressed, MB"), [f"| {name} | {a:.1f} | {b:.1f} |" for name, a, b in sizes]
        )
        + "\n\nBy package, with its bytecode:\n\n"
        + _table(("package", "unpacked, MB"), rows)
    )


_SECTIONS: Final[dict[str, Callable[[Any], str]]] = {
    "stages": stages_section,
    "scaling": _scaling,
    "copying": _copying,
    "latency": _latency,
    "variants": _variants,
    "startup": _startup,
    "memory": _large,
    "half": _half,
    "image": _image,
}


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    return "\n".join([f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *rows])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
