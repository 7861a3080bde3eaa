"""Load a user's class from `path/file.py:Class`. Torch-free, except for imports of the file itself."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType

from hfexport._internal.blame import USER_MODULE_PREFIX
from hfexport.errors import InputsError, first_line
from hfexport.modeling.user_class.onnx_config import OnnxConfig

__all__ = ["load_class"]


def load_class(reference: str) -> type[OnnxConfig]:
    """Return the class that `path/file.py:Class` names; this runs the file's code.

    Raises:
        InputsError: the file or the class does not exist, the file's code fails, or the class has no suitable base.
    """
    path, _, name = reference.rpartition(":")
    module = _run_file(Path(path), reference)
    found = getattr(module, name, None)
    if not inspect.isclass(found) or not issubclass(found, OnnxConfig):
        own = [key for key, value in vars(module).items() if _is_own(value, module.__name__)]
        what = "has no class" if found is None else "is no OnnxConfig:"
        subject = path if found is None else reference
        raise InputsError(
            [
                f"export-config {reference!r}: {subject} {what} {name}; it has {', '.join(own) or 'no export config class'}"
            ]
        )
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise InputsError([f"export-config {reference!r}: {name} has no {', '.join(missing)}"])
    return found


def _is_own(value: object, module: str) -> bool:
    return inspect.isclass(value) and issubclass(value, OnnxConfig) and value.__module__ == module


def _run_file(path: Path, reference: str) -> ModuleType:
    name = f"{USER_MODULE_PREFIX}{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputsError([f"export-config {reference!r}: {path} is not a Python file"])
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and typing look modules up by name
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise InputsError([f"export-config {reference!r}: {_where(error, path)}"]) from error
    return module


def _where(error: BaseException, path: Path) -> str:
    """Return the error and the last line of the user's file in its traceback."""
    text = first_line(error)
    said = text if text == type(error).__name__ else f"{type(error).__name__}: {text}"
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{path}{'' if line is None else f', line {line}'}: {said}"
