"""Render the job summary of an export as the picture that the README shows, in a headless Chromium.

.venv/bin/python scripts/summary_picture.py hfexport-out/hfexport.json docs/images/job-summary.png
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt

from hfexport.manifest.summary import job_summary

WIDTH: Final = 1100
HEIGHT: Final = 720

STYLE: Final = """\
body { font: 16px/1.5 -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; color: #1f2328; margin: 24px; }
table { border-collapse: collapse; margin: 0 0 16px; }
th, td { border: 1px solid #d1d9e0; padding: 6px 13px; text-align: left; }
tr:nth-child(2n) { background: #f6f8fa; }
code { background: #818b981f; border-radius: 6px; padding: .2em .4em; font: 85% "DejaVu Sans Mono", monospace; }
pre { background: #f6f8fa; border-radius: 6px; padding: 16px; overflow: hidden; }
pre code { background: none; padding: 0; }
h1, h2 { border-bottom: 1px solid #d1d9e0b3; padding-bottom: .3em; }
"""


def page(manifest: Path) -> str:
    """Return the job summary of a manifest as a page of HTML that looks like GitHub's."""
    summary = job_summary(json.loads(manifest.read_text(encoding="utf-8")))
    body = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(summary)
    return f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>{body}"


def main(arguments: list[str]) -> int:
    """Render one manifest; return the exit code."""
    manifest, picture = map(Path, arguments)
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        print("No Chromium was found. Install one (Debian: apt install chromium).", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "summary.html")
        source.write_text(page(manifest), encoding="utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        flags += [
            "--disable-background-networking",
            f"--user-data-dir={folder}/profile",
            f"--window-size={WIDTH},{HEIGHT}",
        ]
        picture.parent.mkdir(parents=True, exist_ok=True)
        command = [browser, *flags, f"--screenshot={picture.resolve()}", source.as_uri()]
        subprocess.run(command, check=True, capture_output=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
