"""Wheels of the stand-ins, by the names and versions of AWS's packages, laid out as an index that pip reads.

    python wheels.py inf1 FOLDER      writes FOLDER/torch-neuron/*.whl and FOLDER/neuron-cc/*.whl

Standard library only.
"""

from __future__ import annotations

import stat
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Package:
    """One package of an SDK.

    Attributes:
        name, version: by which pip knows it.
        module: folder beside this file that it brings.
        compiler: name under which it brings the stand-in of the compiler.
        modules: further ones: the compiler's own, and other names of `module`.
        metadata: lines for pip, such as what it requires.
    """

    name: str
    version: str
    module: str = ""
    compiler: str = ""
    modules: tuple[tuple[str, str], ...] = ()
    metadata: tuple[str, ...] = ()

    @property
    def base(self) -> str:
        """How the names of its wheel, and of the folders in it, begin."""
        return f"{self.name.replace('-', '_')}-{self.version}"

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Name and content of every file of its wheel but RECORD."""
        if self.module:
            yield "neuron_stand_in.py", (HERE / "neuron_stand_in.py").read_bytes()
            for path in sorted((HERE / self.module).glob("*.py")):
                yield f"{self.module}/{path.name}", path.read_bytes()
        for name, code in self.modules:
            yield name, code.encode()
        if self.compiler:
            yield f"{self.base}.data/scripts/{self.compiler}", (HERE / "compiler.sh").read_bytes()
        head = ("Metadata-Version: 2.1", f"Name: {self.name}", f"Version: {self.version}")
        yield f"{self.base}.dist-info/METADATA", "\n".join((*head, *self.metadata, "")).encode()
        wheel = ("Wheel-Version: 1.0", "Generator: stand-in", "Root-Is-Purelib: true", "Tag: py3-none-any", "")
        yield f"{self.base}.dist-info/WHEEL", "\n".join(wheel).encode()


TORCH_NEURON = (
    "torch/neuron/__init__.py",
    "import sys\n\nimport torch_neuron\n\nsys.modules[__name__] = torch_neuron\n",
)
"""`torch.neuron`, another name of torch_neuron."""

SDKS = {
    "inf1": (
        Package(
            "torch-neuron",
            "1.13.1.2.11.13.0",
            module="torch_neuron",
            modules=(TORCH_NEURON,),
            metadata=("Requires-Dist: torch==1.13.1",),
        ),
        Package(
            "neuron-cc",
            "1.24.0.0",
            compiler="neuron-cc",
            modules=(("neuroncc/__init__.py", '__version__ = "1.24.0.0"\n'),),
            metadata=("Provides-Extra: tensorflow",),
        ),
    ),
    "inf2": (
        Package("torch-neuronx", "2.9.0.2.15.32035", module="torch_neuronx"),
        Package(
            "neuronx-cc",
            "2.28.7631.0",
            compiler="neuronx-cc",
            modules=(("neuronxcc/__init__.py", '__version__ = "2.28.7631.0"\n'),),
        ),
    ),
}
"""By target: what AWS's index has."""


def write_index(target: str, folder: Path) -> None:
    """Write the wheels of the SDK for `target`, each in a folder of its package's name, as pip expects of an index."""
    for package in SDKS[target]:
        place = folder / package.name
        place.mkdir(parents=True, exist_ok=True)
        files = list(package.files())
        record = f"{package.base}.dist-info/RECORD"
        listed = "".join(f"{name},,\n" for name, _ in (*files, (record, b"")))
        with zipfile.ZipFile(place / f"{package.base}-py3-none-any.whl", "w") as wheel:
            for name, content in (*files, (record, listed.encode())):
                entry = zipfile.ZipInfo(name)
                entry.external_attr = (stat.S_IFREG | (0o755 if "/scripts/" in name else 0o644)) << 16
                wheel.writestr(entry, content)


if __name__ == "__main__":
    write_index(sys.argv[1], Path(sys.argv[2]))
