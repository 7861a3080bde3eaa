"""Check that the interpreter has what a target needs."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Mapping, Sequence

from . import SDKS, TRANSFORMERS, Failure
from .files import first_line


def probe(job: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Check that everything the target needs is installed, without doing any work.

    Returns:
        `versions`: versions of Python and of each package.
    """
    del folder
    sdk = SDKS[job["target"]]
    low, high = sdk["python"]
    if not low <= sys.version_info[:2] <= high:
        raise Failure(
            "wrong_version",
            "Python is {}; {} needs 3.{} to 3.{}".format(
                platform.python_version(), sdk["packages"][0], low[1], high[1]
            ),
        )
    versions = {"python": platform.python_version()}
    for package in ("torch", "transformers", "numpy", *sdk["packages"]):
        versions[package] = version_of(package)
    if not hasattr(import_sdk(job["target"]), "trace"):
        raise Failure("wrong_version", "{} {} has no trace".format(sdk["packages"][0], versions[sdk["packages"][0]]))
    for package, wanted in (("torch", sdk["torch"]), ("transformers", TRANSFORMERS)):
        if not versions[package].startswith(wanted):
            raise Failure("wrong_version", "{} is {}; {}* is needed".format(package, versions[package], wanted))
    beside = str(Path(sys.executable).parent)
    if shutil.which(sdk["compiler"], path=os.pathsep.join([beside, os.environ.get("PATH", os.defpath)])) is None:
        raise Failure(
            "no_compiler", "the compiler {} is not beside {} or in PATH".format(sdk["compiler"], sys.executable)
        )
    return {"versions": versions}


def version_of(package: str) -> str:
    """Return the installed version of a package."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        raise Failure("no_sdk", "package {} is not installed for {}".format(package, sys.executable)) from None


def import_sdk(target: str, compiler_args: Sequence[str] = ()) -> Any:
    """Import the SDK's module. The placeholder packages on PyPI install but raise on import.

    Args:
        target: key of `SDKS`.
        compiler_args: arguments for the compiler, which may name another platform than the target.
    """
    name = SDKS[target]["module"]
    if target == "inf2" and not devices():
        # The SDK reads it when it is imported, and looks for a device otherwise.
        os.environ.setdefault("NEURON_PLATFORM_TARGET_OVERRIDE", platform_of(compiler_args) or target)
    try:
        return import_module(name)
    except ImportError as error:
        code = "placeholder_package" if "wrong package" in str(error).lower() else "no_sdk"
        raise Failure(code, "import {}: {}".format(name, first_line(error))) from None


def compiler_arguments(asked: Sequence[str]) -> list[str]:
    """Return the arguments of neuronx-cc: those asked for, and defaults that its releases change.

    Token ids are int64, which Inf2 computes as int32. Release 2.32 of the SDK announces that the defaults of the two integer
    flags change, and which values keep them:
    https://awsdocs-neuron.readthedocs-hosted.com/en/v2.32.0/release-notes/components/compiler.html
    """
    named = {argument.split("=")[0] for argument in asked}
    pinned = (("--target", "inf2"), ("--native-int64", "disabled"), ("--implicit-integer-downcast", "all"))
    return [*asked, *(word for name, value in pinned if name not in named for word in (name, value))]


def platform_of(compiler_args: Sequence[str]) -> str:
    """Return the value of `--target` in the compiler's arguments; empty if there is none."""
    for number, argument in enumerate(compiler_args):
        if argument == "--target" and number + 1 < len(compiler_args):
            return compiler_args[number + 1]
        if argument.startswith("--target="):
            return argument.split("=", 1)[1]
    return ""


def devices() -> list[Path]:
    """List the Neuron devices of this machine."""
    return sorted(Path("/dev").glob("neuron[0-9]*"))
