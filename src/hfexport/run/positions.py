"""Repeat a run whose model fails at positions that its config promises but the model does not have."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from hfexport.errors import UnsupportedError
from hfexport.export_config import DeclaredConfig, DeclaredSeq2Seq
from hfexport.run.exporter import Exporter

__all__ = ["within_positions"]

_Result = TypeVar("_Result")


def within_positions(exporter: Exporter, go: Callable[[Exporter], _Result]) -> tuple[Exporter, _Result]:
    """Call `go`; if the model fails, measure its positions, and call `go` again if it has fewer than were assumed.

    Args:
        exporter: exporter of the model.
        go: exports or validates with the exporter that it is given.

    Returns:
        The exporter that was used, and the result of `go`.

    Raises:
        UnsupportedError: the model fails for another reason.
    """
    from hfexport.validation.validators import References

    try:
        return exporter, go(exporter)
    except UnsupportedError as error:
        found = _measured(exporter)
        if not found:
            raise
        listed = ", ".join(f"{size} {name.removeprefix('max_').replace('_', ' ')}" for name, size in found.items())
        exporter.observer.note(
            f"The model has fewer positions than its config says; measured: {listed} ({error.message})"
        )
    exporter.references.stop()
    begun = exporter.ready.iterdir() if exporter.ready.is_dir() else ()
    for folder in [*exporter.staging.glob("reference-*"), *begun]:
        shutil.rmtree(folder)
    family = exporter.family.with_measured_positions(found)
    again = replace(exporter, family=family, references=References(exporter.subject))
    return again, go(again)


def _measured(exporter: Exporter) -> dict[str, int]:
    """Return the model's own numbers of positions where its export config has larger ones."""
    from hfexport.modeling.inferred.dry_run import DryModel
    from hfexport.modeling.inferred.positions import measured_positions
    from hfexport.modeling.load import empty_model, load_model

    family, subject = exporter.family, exporter.subject
    if isinstance(family, DeclaredConfig | DeclaredSeq2Seq):
        return {}  # these were measured when they were inferred
    folder, dtype = subject.folder_in(subject.dtype), subject.dtype
    dry = DryModel(lambda mode: empty_model(family, dtype, mode), lambda: load_model(folder, family, dtype))
    return measured_positions(family, dry)
