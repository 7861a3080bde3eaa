"""Write the manifest's JSON schema from its types; with --check, fail if the file differs.

.venv/bin/python scripts/write_schema.py [--check]
"""

from __future__ import annotations

import json
import sys

from hfexport.manifest.entries import SCHEMA_FILE
from hfexport.manifest.schema import schema


def main(arguments: list[str]) -> int:
    """Write or check the file; return the exit code."""
    text = json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
    if "--check" not in arguments:
        SCHEMA_FILE.write_text(text, encoding="utf-8")
    elif SCHEMA_FILE.read_text(encoding="utf-8") != text:
        print(f"{SCHEMA_FILE.name} differs from hfexport.manifest.schema: run scripts/write_schema.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
