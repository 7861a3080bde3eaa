"""Write the JSON schemas of the manifest and of fleet files from their types; with --check, fail if a file differs.

.venv/bin/python scripts/write_schema.py [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hfexport.manifest import schema as manifest
from hfexport.manifest.entries import SCHEMA_FILE
from hfexport.run.fleet import model
from hfexport.run.fleet import schema as fleet

FILES = {
    SCHEMA_FILE: manifest.schema,
    Path(model.__file__).with_name(model.SCHEMA_FILE): fleet.schema,
}
"""The schema of each file."""


def main(arguments: list[str]) -> int:
    """Write or check the files; return the exit code."""
    stale = []
    for path, schema in FILES.items():
        text = json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
    if stale:
        print(f"{', '.join(stale)}: differs from its types: run scripts/write_schema.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
