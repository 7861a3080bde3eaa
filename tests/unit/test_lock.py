"""The locks fit pyproject.toml, and `scripts/lock.py --check` says so when they do not."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def lock() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lock", ROOT / "scripts" / "lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what the check reads."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    return tmp_path


def test_the_locks_fit(lock: ModuleType) -> None:
    assert lock.check(ROOT) == []


@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "complaint"),
    [
        ("requirements/torch.txt", r"==2.13.0 (?s:.*)", "==2.13.0\n", "torch.txt: torch has no hash"),
        ("pyproject.toml", r'"rich>=15,<16"', '"rich>=16"', "rich 15"),
        ("pyproject.toml", r'"rich>=15,<16"', '"rich>=15,<16", "left-pad>=1"', "left-pad>=1"),
        ("pyproject.toml", r"torch==2\.13\.\*", "torch==2.14.*", "torch 2.13"),
        ("pyproject.toml", r"flit_core>=3\.12", "flit_core>=4.99", "flit_core 3.12"),
        ("requirements/runtime.txt", r"(?m)^rich==.*\\\n(    --hash.*\n)+", "rich==15.0.0\n", "rich has no hash"),
        ("requirements/runtime.txt", r"\A", "--index-url https://example.org/simple\n", "a place to install from"),
        ("requirements/neuron.txt", r"(?m)^tqdm==.*\\\n(    --hash.*\n)+", "tqdm==4.70.1\n", "tqdm has no hash"),
        ("requirements/neuron-inf1.txt", r"(?m)^numpy==1\.22\S+", "numpy==1.21.0", "numpy 1.21"),
        ("requirements/neuron-inf1.txt", r"(?m)^numpy==1\.23\S+", "numpy==1.21.0", "numpy 1.21"),
        ("requirements/dev.txt", r"(?m)^numpy==\S+", "numpy==2.2.1", "numpy is"),
        ("requirements/dev.txt", r"(?m)^sympy==.*\\\n(    .*\n)+", "", "dev.txt lacks sympy"),
        ("requirements/wheels-arm64.txt", r"(?m)^onnxruntime-.*\n", "", "onnxruntime 1.32.0 has no wheel for arm64"),
        ("requirements/wheels-arm64.txt", r"(?m)^torch-.*\n", "", "torch 2.13.0 has no wheel for arm64"),
        ("requirements/wheels-arm64.txt", r"(?m)^numpy-2[^-]*", "numpy-2.0.0", "numpy 2.4.6 has no wheel for arm64"),
        ("requirements/wheels-arm64.txt", r"(?m)^(h5py-\S+)aarch64", r"\1x86_64", "is not for arm64"),
        (
            "requirements/wheels-arm64.txt",
            r"(?m)^(rich-\S+ --hash=sha256:).{64}",
            rf"\g<1>{'0' * 64}",
            "is not in runtime.txt",
        ),
        ("requirements/wheels-arm64.txt", r"(?m)^rich-\S+whl", "rich.whl", "Invalid wheel filename"),
    ],
)
def test_drift_is_found(
    lock: ModuleType, project: Path, file: str, pattern: str, replacement: str, complaint: str
) -> None:
    path = project / file
    text, changes = re.subn(pattern, replacement, path.read_text(encoding="utf-8"), count=1)
    assert changes == 1
    path.write_text(text, encoding="utf-8")
    assert any(complaint in problem for problem in lock.check(project))


def test_no_name_is_looked_for_in_two_indexes() -> None:
    files = [ROOT / "Makefile", ROOT / "Dockerfile", ROOT / "scripts/lock.py", ROOT / ".ci/run"]
    files += [*(ROOT / ".github").rglob("*.yml"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "requirements").iterdir()]
    assert [str(path) for path in files if "extra-index-url" in path.read_text(encoding="utf-8")] == []
