"""Writes the tables of docs/mutation.md, and their first line into docs/validation.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mutation.harness import Result
from mutation.mutant import KINDS

__all__ = ["write_summary", "write_tables"]

BEGIN, END = "<!-- mutation: begin -->", "<!-- mutation: end -->"


def write_tables(results: Sequence[Result], path: Path) -> None:
    """Replace what stands between the marks of `path` by the tables of `results`."""
    _write(tables(results), path)


def write_summary(results: Sequence[Result], path: Path) -> None:
    """Replace what stands between the marks of `path` by the first line of the tables."""
    _write(tables(results).splitlines()[0] + "\n", path)


def _write(content: str, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{content}{END}{after}", encoding="utf-8")


def tables(results: Sequence[Result]) -> str:
    """The figures in Markdown: the whole, by kind of mutant, by model, and the survivors."""
    wrong = [one for one in results if one.verdict in ("refused", "survived")]
    survivors = [one for one in results if one.verdict == "survived"]
    share = 100 * (len(wrong) - len(survivors)) / len(wrong) if wrong else 0.0
    models = len({one.subject for one in results})
    refused = len(wrong) - len(survivors)
    whole = f"{len(results)} mutants of {models} models; {len(wrong)} are wrong, of which `hfexport verify` refuses"
    lines = [
        f"{whole} {refused}: **{share:.1f} %**.",
        "",
        *_table("kind of mutant", results, list(KINDS), lambda one: one.kind),
        "",
        *_table("model", results, list(dict.fromkeys(map(_model, results))), _model),
    ]
    if survivors:
        lines += ["", "Wrong, and not refused:", ""]
        lines += [f"- {one.subject} `{one.artifact}`: {one.kind}: {one.place}" for one in survivors]
    return "\n".join(lines) + "\n"


def _model(result: Result) -> str:
    return f"{result.subject} ({result.model_kind}), {result.format}"


def _table(title: str, results: Sequence[Result], rows: Sequence[str], row_of: Callable[[Result], str]) -> list[str]:
    lines = [f"| {title} | wrong | refused | equivalent | does not load |", "|---|---|---|---|---|"]
    for row in rows:
        found = [one.verdict for one in results if row_of(one) == row]
        if not found:
            continue
        wrong = found.count("refused") + found.count("survived")
        counts = (wrong, found.count("refused"), found.count("equivalent"), found.count("does not load"))
        lines.append(f"| {row} | " + " | ".join(map(str, counts)) + " |")
    return lines
