"""Update the model card: a section between markers and a few metadata fields. All other bytes stay unchanged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import yaml

from hfexport.errors import PublishError
from hfexport.manifest.entries import source_of
from hfexport.manifest.model import ArtifactEntry, Manifest
from hfexport.manifest.summary import TABLE_COLUMNS, load_snippet, loose_lines, speed_section, table_rows
from hfexport.manifest.variants import VARIANT_COLUMNS, how_to_load, variant_rows

__all__ = ["END", "START", "Metadata", "hub_snippet", "section", "updated_card"]

START: Final = "<!-- hfexport:start -->"
END: Final = "<!-- hfexport:end -->"

CLAIMS: Final = {
    "passed": "Each was run in a fresh process at shapes, paddings and values that the export did not see, and compared "
    "with the original model: every element of every output lies within the tolerance.",
    "incomplete": "All that could be checked where they were made lies within the tolerance; the manifest names what "
    "could not be run there.",
    "not_validated": "**They were not validated.**",
}
"""Statement about the artifacts for each verdict of the manifest."""

_FRONT_MATTER: Final = re.compile(r"\A(\ufeff?---[ \t]*\r?\n)(.*?)(^---[ \t]*(?:\r?\n|\Z))", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Metadata:
    """Front matter fields to add to the card; existing fields keep their values.

    Attributes:
        tags: tags to add to the existing ones.
        library_name: library that the Hub shows for loading the model.
        base_model: repository of the source model, if it is another repository.
    """

    tags: tuple[str, ...] = ()
    library_name: str = ""
    base_model: str = ""


def updated_card(card: str, section_text: str, metadata: Metadata) -> str:
    """Return the card with the section and metadata inserted or updated.

    Args:
        card: current text; empty if there is no card.
        section_text: text to put between the markers.
        metadata: fields to add.

    Raises:
        PublishError: the markers or the front matter are damaged.
    """
    newline = "\r\n" if "\r\n" in card else "\n"
    block = f"{START}\n{section_text.strip()}\n{END}".replace("\n", newline)
    counts = card.count(START), card.count(END)
    if counts == (0, 0):
        gap = "" if not card or card.endswith(newline * 2) else newline if card.endswith(newline) else newline * 2
        text = f"{card}{gap}{block}{newline}"
    elif counts == (1, 1) and card.index(START) < card.index(END):
        text = card[: card.index(START)] + block + card[card.index(END) + len(END) :]
    else:
        raise PublishError(
            f"README.md: has {counts[0]} lines {START} and {counts[1]} lines {END}",
            remedy="Leave one of each, in this order, or none.",
        )
    return _with_metadata(text, metadata, newline)


def section(manifest: Manifest, repository: str, prefix: str) -> str:
    """Write the card's section: the validation result, and code that loads each artifact from the Hub."""
    source = source_of(manifest)
    made_from = f" of `{source['hub']['repository']}` at commit `{source['hub']['commit']}`" if source["hub"] else ""
    claim = CLAIMS[manifest["verdict"]]
    version = manifest["producer"]["version"]
    intro = (
        f"Exports{made_from} for the task `{manifest['task']}` in {manifest['dtype']}, made by "
        f"[hfexport](https://github.com/org/hfexport-action) {version}. {claim} "
        f"`{prefix}hfexport.json` holds hashes, versions and every difference that was measured."
    )
    lines = ["## Exported artifacts", "", intro, "", *table(manifest), ""]
    if loose := loose_lines(manifest["artifacts"]):
        lines += [*loose, ""]
    if unused := source.get("unused_tensors"):
        lines += ["Tensors of the checkpoint that are not in the exported model: " + _names(unused) + ".", ""]
    for artifact in manifest["artifacts"]:
        snippet = hub_snippet(artifact, manifest, repository, prefix)
        lines += [f"### {artifact['format']}", "", "```python", snippet.rstrip(), "```", ""]
    speed = speed_section(manifest)
    return "\n".join([*lines, *_variants(manifest), *(["### Speed", "", *speed] if speed else [])])


def _variants(manifest: Manifest) -> list[str]:
    """List the variants with their sizes, their measured quality, and how to load each."""
    entries = manifest.get("variants", [])
    if not entries:
        return []
    columns = [*VARIANT_COLUMNS[:-1], "how to load"]
    rows = [
        [*row[:-1], how_to_load(entry, manifest)] for row, entry in zip(variant_rows(manifest), entries, strict=True)
    ]
    data = re.sub(r"[^\w .:/-]", "_", entries[0]["quality"]["data"])  # may be the name of a user's file
    measured = f"Quality was measured on {data}, against the original model in float32." if data else "Not measured."
    table_lines = ["| " + " | ".join(row) + " |" for row in (columns, ["---"] * len(columns), *rows)]
    return ["### Variants", "", measured, "", *table_lines, ""]


def _names(names: Sequence[str]) -> str:
    """Format at most 20 tensor names as code; unusual characters are replaced, since a checkpoint chooses the names."""
    shown = ", ".join(f"`{re.sub(r'[^A-Za-z0-9_.:/-]', '_', name)}`" for name in names[:20])
    more = f" and {len(names) - 20} more, which `hfexport.json` names" if len(names) > 20 else ""
    return shown + more


def table(manifest: Manifest) -> list[str]:
    """Format the artifacts as a Markdown table."""
    rows = [TABLE_COLUMNS, ["---"] * len(TABLE_COLUMNS), *table_rows(manifest)]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def hub_snippet(artifact: ArtifactEntry, manifest: Manifest, repository: str, prefix: str, revision: str = "") -> str:
    """Return Python code that downloads an artifact from the Hub, loads it and runs it once.

    Args:
        artifact: artifact entry of the manifest.
        manifest: manifest of the export.
        repository: `owner/name`.
        prefix: folder of the export in the repository, ending with a slash; empty for the root.
        revision: branch or `refs/pr/N`; empty for `main`.
    """
    imports, _, body = load_snippet(artifact, manifest).partition("\n\n")
    name = str(artifact["format"])
    at = f", revision={revision!r}" if revision else ""
    download = f"folder = snapshot_download({repository!r}{at}, allow_patterns={f'{prefix}{name}/*'!r})"
    local = re.sub(rf"'({re.escape(name)}(?:/[^']*)?)'", lambda found: f'f"{{folder}}/{prefix}{found[1]}"', body)
    return f"from huggingface_hub import snapshot_download\n{imports}\n\n{download}\n{local}"


def _with_metadata(card: str, metadata: Metadata, newline: str) -> str:
    """Insert missing metadata into the card's front matter, line by line, without rewriting the rest."""
    found = _FRONT_MATTER.match(card)
    if found is None:
        lines = _new_fields(metadata, {})
        return "".join(line + newline for line in ("---", *lines, "---")) + card if lines else card
    opening, text, rest = found[1], found[2], card[found.start(3) :]
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        present = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise PublishError(f"README.md: its metadata is not YAML: {problem}", remedy="Correct the card.") from error
    if not isinstance(present, dict) or (root is not None and not isinstance(root, yaml.MappingNode)):
        raise PublishError("README.md: its metadata is not a mapping of names to values", remedy="Correct the card.")
    text = _with_tags(text, root, present, metadata.tags, newline)
    added = _new_fields(metadata, present)
    if added and text and not text.endswith("\n"):
        text += newline
    return opening + text + "".join(line + newline for line in added) + rest


def _new_fields(metadata: Metadata, present: dict[str, object]) -> list[str]:
    lines = []
    if metadata.tags and present.get("tags") is None and "tags" not in present:
        lines += ["tags:", *(f"- {tag}" for tag in metadata.tags)]
    if metadata.library_name and "library_name" not in present:
        lines.append(f"library_name: {metadata.library_name}")
    if metadata.base_model and not {"base_model", "base_model_relation"} & present.keys():
        # The Hub uses "quantized" for every conversion that is not a finetune, an adapter or a merge.
        lines += [f"base_model: {metadata.base_model}", "base_model_relation: quantized"]
    return lines


def _with_tags(
    text: str, root: yaml.MappingNode | None, present: dict[str, object], tags: Sequence[str], newline: str
) -> str:
    """Add missing tags to the front matter's list, in the style of that list."""
    node = next((value for key, value in root.value if key.value == "tags"), None) if root is not None else None
    if node is None:
        return text
    listed = present["tags"]
    if listed is None:
        at = node.start_mark.index
        return text[:at] + f" [{', '.join(tags)}]" + text[at:]
    if not isinstance(node, yaml.SequenceNode):
        return text  # not a list, for example a single word: the Hub's own check reports it
    assert isinstance(listed, list)
    missing = [tag for tag in tags if tag not in listed]
    if not missing:
        return text
    if node.flow_style:
        at = node.end_mark.index - 1
        comma = ", " if listed and not text[:at].rstrip().endswith(",") else ""
        return text[:at] + comma + ", ".join(missing) + text[at:]
    last = node.value[-1]
    line = text.rfind("\n", 0, node.start_mark.index) + 1
    indent = text[line : node.start_mark.index]
    end = text.find("\n", last.end_mark.index)
    end = len(text) if end < 0 else end + 1
    before = text[:end] if text[:end].endswith("\n") else text[:end] + newline
    return before + "".join(f"{indent}- {tag}{newline}" for tag in missing) + text[end:]
