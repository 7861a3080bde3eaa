"""Puts the stand-ins into the environment whose Python runs this: `PYTHON install.py`."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGES = {"torch-neuron": "1.13.1.2.11.13.0", "neuron-cc": "1.24.0.0"}


def main() -> None:
    packages = Path(sysconfig.get_path("purelib"))
    shutil.copytree(HERE / "torch_neuron", packages / "torch_neuron", dirs_exist_ok=True)
    for name, version in PACKAGES.items():
        info = packages / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    shutil.copy(HERE / "neuron-cc", Path(sys.executable).parent / "neuron-cc")


if __name__ == "__main__":
    main()
