"""Remove files from an environment that only developers of its packages need: `python prune.py /opt/hfexport`.

Files that `torch.export`, ONNX Runtime or transformers import stay; the container test runs real exports in the result.
Standard library only: it runs in the image's builder.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Final

UNUSED: Final = (
    "torch/test",  # compiled C++ tests
    "torch/include",  # headers, for building extensions
    "torch/share",  # CMake files, for the same
    "torch/bin/test_*",
    "torch/bin/*Test",
    "torch/bin/protoc*",
    "torch/bin/upgrader_models",
    "torch/lib/libtorchbind_test.so",
    "torch/lib/libjitbackend_test.so",
    "torch/lib/libbackend_with_compiler.so",
    "torch/**/*.pyi",  # types for checkers
    "torch/testing/_internal/common_methods_invocations.py",  # tables of torch's own tests; other parts are imported
    "torch/testing/_internal/common_modules.py",
    "torch/testing/_internal/common_nn.py",
    "torch/testing/_internal/common_quantiz*.py",
    "torch/testing/_internal/hop_db.py",
    "torch/testing/_internal/opinfo",
    "torch/testing/_internal/generated",
    "transformers/models/*/modular_*.py",  # what modeling_*.py was generated from
    "onnx/backend/test",  # 4,000 small models, and what makes them
    "onnxruntime/datasets",
    "setuptools",  # for building extensions
    "_distutils_hack",
    "distutils-precedence.pth",
    "setuptools-*.dist-info",
    "pygments/lexers/[a-z]*.py",  # nothing here colours source code
    "sympy/physics",
    "sympy/parsing/autolev",
    "numpy/f2py",
    "numpy/**/tests",
    "sympy/**/tests",
    "networkx/**/tests",
    "mpmath/**/tests",
    "fsspec/tests",
    "h5py/tests",
    "regex/tests",
)
"""Patterns under site-packages."""


def main() -> None:
    """Remove the files that match `UNUSED` and print their size; a pattern without a match is an error."""
    (packages,) = Path(sys.argv[1]).glob("lib/python3.*/site-packages")
    freed_bytes = 0
    for pattern in UNUSED:
        found = sorted(packages.glob(pattern))
        if not found:
            sys.exit(f"prune: {pattern} matches nothing in {packages}; remove or correct the pattern")
        for path in found:
            freed_bytes += _size_bytes(path)
            if path.is_dir():
                shutil.rmtree(path)
            elif path.exists():
                path.unlink()
    print(f"prune: {freed_bytes / 1e6:.0f} MB less")


def _size_bytes(path: Path) -> int:
    if not path.exists():
        return 0
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if file.is_file())


if __name__ == "__main__":
    main()
