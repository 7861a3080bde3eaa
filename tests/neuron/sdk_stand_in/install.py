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

FURTHER = {
    "inf1": {
        "neuroncc/__init__.py": '__version__ = "1.24.0.0"\n',
        "torch/neuron/__init__.py": "import sys\n\nimport torch_neuron\n\nsys.modules[__name__] = torch_neuron\n",
    },
    "inf2": {"neuronxcc/__init__.py": '__version__ = "2.26.6360.0"\n'},
}
"""Modules that come with the SDK: the compiler's own, and `torch.neuron`, another name of torch_neuron."""


def main() -> None:
    module, compiler, packages = SDKS[sys.argv[1]]
    place = Path(sysconfig.get_path("purelib"))
    shutil.copy(HERE / "neuron_stand_in.py", place)
    shutil.copytree(HERE / module, place / module, dirs_exist_ok=True)
    for name, version in packages.items():
        info = place / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    for name, code in FURTHER[sys.argv[1]].items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(code)
    shutil.copy(HERE / "compiler.sh", Path(sys.executable).parent / compiler)


if __name__ == "__main__":
    main()
