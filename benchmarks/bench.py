"""Measure hfexport side by side with other exporters, and write docs/performance.md.

    make bench                                              # every case and section; an hour on two cores
    make bench ARGS="--only export --cases bert-base,minilm"
    make bench ARGS="--only export --contenders 'hfexport cold,optimum-cli' --runs 3"
    make bench ARGS="--only stages --runs 3"                  # where the time of an export goes
    make bench ARGS="--only image --image hfexport:test"     # what a built image holds; not part of a plain call
    make bench ARGS=--write                                 # write the document from benchmarks/results.json again

What a call measures replaces those figures in benchmarks/results.json; all others stay. Each exporter has an environment of
its own. One that is not installed or fails is in the tables with its reason.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from cases import CASES
from chart import draw
from comparison import compare
from copying import copying
from image import image
from latency import latency
from limits import half_precision, large
from peers import CONTENDERS
from results import context, load, next_call, save, source
from scaling import scaling
from stages import stages
from startup import startup
from tables import page
from variants import variants

ROOT: Final = Path(__file__).resolve().parent.parent
DOCUMENT: Final = ROOT / "docs" / "performance.md"
CHART: Final = ROOT / "docs" / "images" / "performance.svg"

SECTIONS: Final[dict[str, Callable[[Path, int], Any]]] = {
    "startup": startup,
    "latency": latency,
    "variants": variants,
    "scaling": scaling,
    "copying": copying,
    "memory": lambda folder, _: large(folder),
    "half": lambda folder, _: half_precision(folder),
}
"""Sections other than `export`, in the order in which they are measured."""


def main() -> None:
    arguments = _arguments()
    results = load()
    if not arguments.write:
        results["context"] = context()
        _measure(results, arguments)
    write(load())  # as stored, so that the document can be made again from the file


def write(results: dict[str, Any], document: Path = DOCUMENT, chart: Path = CHART) -> None:
    """Write the document and its chart."""
    document.write_text(page(results), encoding="utf-8")
    if results.get("comparison"):
        draw(results["comparison"], chart)


def _measure(results: dict[str, Any], arguments: argparse.Namespace) -> None:
    call, tree = next_call(results), source()
    sources = results.setdefault("sources", {})
    with tempfile.TemporaryDirectory(prefix="hfexport-bench-", dir=arguments.scratch) as temporary:
        if "export" in arguments.only:
            for case in arguments.cases:
                print(f"{case.name}: {', '.join(one.name for one in arguments.contenders)}", file=sys.stderr)
                folder = Path(temporary) / case.name
                folder.mkdir()
                entries = compare(case, arguments.contenders, runs=arguments.runs, call=call, folder=folder)
                results.setdefault("comparison", {}).setdefault(case.name, {}).update(entries)
                sources[case.name] = tree
                shutil.rmtree(folder)
                save(results)
        if "stages" in arguments.only:
            found = stages(Path(temporary), arguments.runs, arguments.cases)
            results["stages"] = {**found, "cases": {**results.get("stages", {}).get("cases", {}), **found["cases"]}}
            sources["stages"] = tree
            save(results)
        for name, section in SECTIONS.items():
            if name in arguments.only:
                print(name, file=sys.stderr)
                results[name] = section(Path(temporary), arguments.runs)
                sources[name] = tree
                save(results)
        if "image" in arguments.only:
            results["image"] = image(arguments.image)
            sources["image"] = tree
            save(results)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sections = {name: name for name in ("export", "stages", *SECTIONS)}
    known = {**sections, "image": "image"}
    cases, contenders = {case.name: case for case in CASES}, {one.name: one for one in CONTENDERS}
    parser.add_argument(
        "--runs", type=_runs, default=5, help="counted runs of each, after one that is not (default: 5)"
    )
    parser.add_argument(
        "--only", type=_names(known), default=list(sections), help=f"sections: {', '.join(known)}; not image by default"
    )
    parser.add_argument(
        "--image", default="hfexport:test", help="name of the image to look into (default: %(default)s)"
    )
    parser.add_argument(
        "--cases", type=_names(cases), default=list(CASES), help=f"of export and stages: {', '.join(cases)}"
    )
    parser.add_argument(
        "--contenders", type=_names(contenders), default=list(CONTENDERS), help=f"of export: {', '.join(contenders)}"
    )
    parser.add_argument("--scratch", type=Path, help="folder for checkpoints and artifacts, 30 GB (default: temporary)")
    parser.add_argument("--write", action="store_true", help="measure nothing; write the document from the results")
    return parser.parse_args()


def _runs(text: str) -> int:
    runs = int(text)
    if runs < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least 1 run is needed")
    return runs


def _names(known: dict[str, Any]) -> Callable[[str], Sequence[Any]]:
    """Return a parser of comma-separated names of `known`, in the order of `known`."""

    def parse(text: str) -> Sequence[Any]:
        wanted = [name.strip() for name in text.split(",")]
        for name in wanted:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return [value for name, value in known.items() if name in wanted]

    return parse


if __name__ == "__main__":
    main()
