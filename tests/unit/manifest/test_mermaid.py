"""Charts in the job summary: the right figures, and no text that Mermaid or Markdown could read as its own."""

from __future__ import annotations

import re
from typing import Any

from hfexport.manifest.entries import new_manifest
from hfexport.manifest.mermaid import mermaid_charts
from hfexport.manifest.summary import job_summary
from manifests import failed_manifest, full_manifest, hostile_manifest


def test_the_charts_have_the_figures_of_every_file() -> None:
    shares, sizes, latencies = mermaid_charts(full_manifest())
    assert '  x-axis ["onnx/model.onnx", "torchscript/model.pt"]' in shares
    assert "  bar [75.120000, 9.070000]" in shares
    assert '  y-axis "percent" 0 --> 100.000000' in shares
    assert "  bar [90.387606, 91.100200, 45.100301, 22.900607]" in sizes
    assert '  x-axis ["eager PyTorch", "ONNX", "ONNX fp16", "ONNX int8"]' in latencies
    assert "  bar [100.000000, 86.999931, 113.000069, 40.999584]" in latencies
    summary = job_summary(full_manifest())
    assert shares in summary
    assert sizes in summary
    assert latencies in summary


def test_a_difference_above_its_tolerance_raises_the_axis_and_an_infinite_one_is_left_out() -> None:
    manifest: Any = failed_manifest()
    assert "  bar [9.070000]" in mermaid_charts(manifest)[0]
    manifest["artifacts"][0]["validation"]["tolerance_share"] = 2.5
    assert '  y-axis "percent" 0 --> 250.000000' in mermaid_charts(manifest)[0]


def test_hostile_names_stay_within_their_quotes() -> None:
    for chart in mermaid_charts(hostile_manifest()):
        lines = chart.splitlines()
        assert len(lines) == 7
        assert re.fullmatch(r'  x-axis \[("[A-Za-z0-9 ._/-]*"(, )?)+\]', lines[3])


def test_nothing_made_gives_no_chart() -> None:
    assert mermaid_charts(new_manifest({}, "2026-01-01T00:00:00+00:00")) == []
