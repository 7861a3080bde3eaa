"""Gather the manifests of many exports into one table, as Markdown or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfexport.errors import InputsError, first_line
from hfexport.manifest.entries import MANIFEST_FILE, check_manifest
from hfexport.manifest.model import Manifest
from hfexport.manifest.speed import latency_of
from hfexport.manifest.summary import TABLE_COLUMNS, _text, table_rows
from hfexport.run.fleet.current import read_manifest
from hfexport.run.fleet.schedule import worst

__all__ = ["Gathered", "exit_code", "gather", "markdown", "to_dict", "write_report"]

VALIDATION_FAILED = 6


@dataclass(frozen=True)
class Gathered:
    """One manifest.

    Attributes:
        folder: folder that holds it.
        manifest: its content, which fits the schema.
    """

    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """Return the model's name, with its revision if it is not the default one."""
        inputs = self.manifest["inputs"]
        parts = [str(inputs.get("model", self.folder.name)), inputs.get("subfolder") or ""]
        revision = str(inputs.get("revision", "main"))
        return "/".join(filter(None, parts)) + (f"@{revision}" if revision != "main" else "")

    @property
    def failed(self) -> bool:
        """Whether an artifact failed its validation."""
        verdicts = [artifact["validation"]["verdict"] for artifact in self.manifest["artifacts"]]
        return self.manifest["verdict"] == "failed" or "failed" in verdicts


def gather(folders: Sequence[Path]) -> list[Gathered]:
    """Read every manifest in the folders and below, each once; failed models first, then by name.

    Raises:
        InputsError: a folder is missing or has no manifest, or a manifest cannot be read; lists all problems.
    """
    problems: list[str] = []
    found: dict[Path, Gathered] = {}
    for folder in folders:
        if not folder.is_dir():
            problems.append(f"{folder}: is no folder")
            continue
        paths = sorted(path for path in folder.rglob(MANIFEST_FILE) if not _in_staging(path.relative_to(folder)))
        if not paths:
            problems.append(f"{folder}: holds no {MANIFEST_FILE}")
        for path in paths:
            if path.resolve() not in found and (one := _read(path, problems)) is not None:
                found[path.resolve()] = one
    if problems:
        raise InputsError(problems)
    return sorted(found.values(), key=lambda one: (one.manifest["error"] is None, not one.failed, one.name))


def _in_staging(path: Path) -> bool:
    return any(part.startswith(".hfexport-") for part in path.parts)


def _read(path: Path, problems: list[str]) -> Gathered | None:
    manifest = read_manifest(path.parent)
    if manifest is None:
        problems.append(f"{path}: is not JSON")
        return None
    try:
        check_manifest(manifest)
    except Exception as error:  # noqa: BLE001  the schema's checker may raise anything on hostile values
        problems.append(f"{path}: is no manifest of this version: {first_line(error, limit=200)}")
        return None
    return Gathered(path.parent, manifest)


def exit_code(gathered: Sequence[Gathered]) -> int:
    """Return 6 if any artifact failed its validation, else the worst exit code of the runs."""
    if any(one.failed for one in gathered):
        return VALIDATION_FAILED
    return worst([one.manifest["error"]["exit_code"] for one in gathered if one.manifest["error"] is not None])


def markdown(gathered: Sequence[Gathered]) -> str:
    """Return the table of all artifacts in Markdown, with a row for each model that has none."""
    good = sum(one.manifest["error"] is None and not one.failed for one in gathered)
    lines = [f"## hfexport: {good} of {len(gathered)} models exported", ""]
    measured = any(one.manifest.get("benchmark") for one in gathered)
    columns = ("model", "task", *TABLE_COLUMNS, *(["latency"] if measured else []))
    lines += [_row(columns), _row(["---"] * len(columns))]
    for one in gathered:
        cells = table_rows(one.manifest) or [["", "", "", "", one.manifest["verdict"].replace("_", " ")]]
        if measured:
            speeds = [latency_of(one.manifest, artifact["format"]) for artifact in one.manifest["artifacts"]]
            cells = [[*row, speed] for row, speed in zip(cells, speeds or [""], strict=True)]
        lines += [_row([one.name, one.manifest["task"] or "", *row], len(columns)) for row in cells]
    errors = [one for one in gathered if one.manifest["error"] is not None]
    if errors:
        lines += ["", "### Failed", ""]
    for one in errors:
        error = one.manifest["error"]
        assert error is not None
        message = " ".join(f"{error['message']} {error['remedy']}".split())
        lines.append(f"- **{_text(one.name)}** (exit code {error['exit_code']}): {_text(message)}")
    return "\n".join(lines) + "\n"


def to_dict(gathered: Sequence[Gathered]) -> dict[str, Any]:
    """Return JSON values: the exit code, the counts, and every manifest with its folder."""
    return {
        "exit_code": exit_code(gathered),
        "models": [
            {"name": one.name, "folder": str(one.folder), "failed": one.failed, "manifest": one.manifest}
            for one in gathered
        ],
    }


def write_report(gathered: Sequence[Gathered], path: Path) -> None:
    """Write the HTML report of all manifests."""
    from hfexport.manifest.report import write_report_page

    write_report_page([one.manifest for one in gathered], path)


def _row(cells: Sequence[str], width: int = 0) -> str:
    return "| " + " | ".join(map(_text, [*cells, *[""] * (width - len(cells))])) + " |"
