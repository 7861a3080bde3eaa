"""The same checkpoint, compiled twice the same way, gives the same bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from neuron.conftest import Exporter


@pytest.mark.parametrize("target", ["inf1", "inf2"])
def test_two_runs_give_the_same_files(exporter_for: Callable[[str], Exporter], target: str) -> None:
    exporter = exporter_for(target)
    checkpoint = exporter.checkpoint("distilbert", "sequence-classification")
    made = []
    for _ in range(2):
        done = exporter.run(checkpoint, "--validate", "off")
        assert done.code == 0, done.said
        made.append({entry["path"]: entry["sha256"] for entry in done.artifact["files"]})
    assert made[0] == made[1]
