"""Write action.yml, slim/action.yml and the tables of docs/inputs.md from `hfexport.run.inputs`, or check them.

.venv/bin/python scripts/sync_inputs.py [--check]
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

from hfexport.run.inputs import GROUPS, OUTPUTS, InputField, input_fields

ROOT = Path(__file__).resolve().parent.parent

HEAD = """\
# Written by scripts/sync_inputs.py from src/hfexport/run/inputs/.
name: {name}
description: {description}
author: The hfexport authors
branding:
  icon: check-circle
  color: yellow
"""


def action_yml(
    name: str = "hfexport",
    description: str = "Exports a Hugging Face checkpoint to ONNX, TorchScript and AWS Neuron, and proves each artifact.",
    image: str = "Dockerfile",
) -> str:
    """Return the text of the action's metadata file."""
    lines = [HEAD.format(name=name, description=description).rstrip(), "inputs:"]
    for part in input_fields():
        lines += _yml_input(part.name, part.description, part.default)
        lines += [line for alias in part.aliases for line in _yml_input(alias, f"Another name for {part.name}.", "")]
    lines.append("outputs:")
    for output, meaning in OUTPUTS.items():
        lines += [f"  {output}:", f"    description: {_quoted(meaning)}"]
    lines += ["runs:", "  using: docker", f"  image: {image}"]
    return "\n".join(lines) + "\n"


def _yml_input(name: str, description: str, default: str) -> list[str]:
    lines = [f"  {name}:", f"    description: {_quoted(description)}", "    required: false"]
    return [*lines, '    default: ""'] if not default else [*lines, f"    default: {_quoted(default)}"]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def inputs_tables() -> str:
    """Render the inputs in Markdown, a heading and a table for each group."""
    lines = []
    for group, heading in GROUPS.items():
        lines += ["", f"### {heading}", "", "| input | meaning | default |", "|---|---|---|"]
        lines += [_table_row(part) for part in input_fields() if part.group == group]
    return "\n".join([*lines, ""])


def outputs_table() -> str:
    """Return the table of the action's outputs in Markdown."""
    lines = ["| output | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {description} |" for name, description in OUTPUTS.items()]
    return "\n".join(lines)


def _table_row(part: InputField) -> str:
    names = " or ".join(f"`{name}`" for name in (part.name, *part.aliases))
    default = f"`{part.default}`" if part.default else ""
    return f"| {names} | {part.description} | {default} |"


def documentation(text: str) -> str:
    """Return `text` with the tables between their markers."""
    for name, table in (("inputs", inputs_tables()), ("outputs", outputs_table())):
        start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
        if start not in text or end not in text:
            sys.exit(f"docs/inputs.md has no {start} and {end}")
        before, rest = text.split(start, 1)
        text = f"{before}{start}\n{table}\n{end}{rest.split(end, 1)[1]}"
    return text


def main(arguments: list[str]) -> int:
    """Write the files, or with --check print their differences; return the exit code."""
    inputs_path, action_path = ROOT / "docs" / "inputs.md", ROOT / "action.yml"
    wanted = {
        inputs_path: documentation(inputs_path.read_text(encoding="utf-8")),
        action_path: action_yml(),
        # The action without the Neuron SDK, which a plain image build gives. The release names another image in each.
        ROOT / "slim" / "action.yml": action_yml(
            "hfexport (slim)",
            "Exports a Hugging Face checkpoint to ONNX and TorchScript, and proves each artifact; without the Neuron SDK.",
            "../Dockerfile # zizmor: ignore[unpinned-images] it is built from this very commit",
        ),
    }
    differences: list[str] = []
    for path, text in wanted.items():
        found = path.read_text(encoding="utf-8") if path.exists() else ""
        if "--check" in arguments:
            lines = difflib.unified_diff(
                found.splitlines(), text.splitlines(), path.name, "as it should be", lineterm=""
            )
            differences += lines
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    print("\n".join(differences), end="")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
