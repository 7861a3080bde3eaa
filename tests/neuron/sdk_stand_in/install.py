"""Puts the stand-in of one SDK into the environment whose Python runs this: `PYTHON install.py inf1`, or `inf2`."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
SDKS = {
    "inf1": ("torch_neuron", "neuron-cc", {"torch-neuron": "1.13.1.2.11.13.0", "neuron-cc": "1.24.0.0"}),
    "inf2": ("torch_neuronx", "neuronx-cc", {"torch-neuronx": "2.9.0.2.15.32035", "neuronx-cc": "2.26.6360.0"}),
}
"""Module, compiler, and what is said to be installed."""


def main() -> None:
    module, compiler, packages = SDKS[sys.argv[1]]
    place = Path(sysconfig.get_path("purelib"))
    shutil.copy(HERE / "neuron_stand_in.py", place)
    shutil.copytree(HERE / module, place / module, dirs_exist_ok=True)
    for name, version in packages.items():
        info = place / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    shutil.copy(HERE / "compiler.sh", Path(sys.executable).parent / compiler)


if __name__ == "__main__":
    main()
