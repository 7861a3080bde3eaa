"""Measured speed in tables: medians, ratios, and what was not measured with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from hfexport.hub.publish.card import section
from hfexport.manifest.entries import check_manifest, new_manifest
from hfexport.manifest.report import report_page
from hfexport.manifest.speed import contender_of, latency_of, no_faster, ratio, skipped, speed_tables
from hfexport.manifest.summary import job_summary, speed_section
from hfexport.manifest.variants import VARIANT_COLUMNS, variant_rows
from manifests import HOSTILE, full_manifest, hostile_manifest


def test_a_table_has_a_row_for_each_measured_contender() -> None:
    manifest = full_manifest()
    check_manifest(manifest)
    (table,) = speed_tables(manifest.get("benchmark"))
    assert table.columns == ("model", "batch 1, sequence 32", "decode, batch 8", "of eager")
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["eager PyTorch"] == ("7.2 ms", "98.7 ms, 8,000 tokens/s", "1.00")
    assert rows["ONNX int8"] == ("2.95 ms", "-", "0.41")
    assert "TorchScript" not in rows


def test_ratios_are_geometric_means_over_shared_calls() -> None:
    benchmark: Any = full_manifest().get("benchmark")
    onnx, eager = contender_of(benchmark, "onnx"), contender_of(benchmark, None)
    assert onnx is not None and eager is not None
    assert ratio(onnx, eager) == pytest.approx(0.87, rel=1e-3)
    onnx["timings"][1]["median_ms"] *= 4
    assert ratio(onnx, eager) == pytest.approx(0.87 * 2, rel=1e-3)
    onnx["timings"] = []
    assert ratio(onnx, eager) is None


def test_latencies_are_relative_to_the_plain_file_or_to_eager_pytorch() -> None:
    manifest = full_manifest()
    assert latency_of(manifest, "onnx") == "0.87 of eager"
    assert latency_of(manifest, "onnx", "fp16") == "1.30 of plain"
    assert latency_of(manifest, "torchscript") == "-"
    cells = dict(zip(VARIANT_COLUMNS, variant_rows(manifest)[1], strict=True))
    assert cells["latency"] == "0.47 of plain"


def test_a_variant_that_is_no_faster_is_remarked() -> None:
    manifest: Any = full_manifest()
    assert no_faster(manifest) == {0: "it is no faster here: its latency is 1.30 of the plain files'"}
    manifest["benchmark"]["contenders"][4]["timings"][0]["median_ms"] *= 3
    assert list(no_faster(manifest)) == [0, 1]
    manifest["benchmark"]["contenders"][4]["timings"] = []
    assert list(no_faster(manifest)) == [0]
    assert no_faster(new_manifest({}, "2026-01-01T00:00:00+00:00")) == {}


def test_summary_and_card_have_the_tables_and_the_reasons() -> None:
    manifest = full_manifest()
    for text in (job_summary(manifest), section(manifest, "owner/name", "")):
        assert "| eager PyTorch | 7.2 ms | 98.7 ms, 8,000 tokens/s | 1.00 |" in text
        assert "- Not measured: TorchScript: ended by SIGSEGV" in text
        assert "- Not measured: ONNX int8 at model, decode, batch 8: the runtime rejects it" in text
        assert "with 4 threads each" in text


def test_the_report_draws_latency_and_size() -> None:
    page = report_page([full_manifest()])
    assert "Latency of model, medians in ms: eager PyTorch batch 1, sequence 32 7.2 ms" in page
    assert "ONNX int8 22.9 MB, 41 % of eager PyTorch" in page
    assert "Not measured: <bdi>TorchScript: ended by SIGSEGV</bdi>" in page


def test_hostile_names_stay_text() -> None:
    manifest = hostile_manifest()
    for text in ("\n".join(speed_section(manifest)), report_page([manifest])):
        assert "<script>document" not in text
    assert any(HOSTILE in line for line in skipped(manifest["benchmark"]))  # type: ignore[arg-type,typeddict-item]


def test_without_a_benchmark_nothing_is_said() -> None:
    manifest = new_manifest({}, "2026-01-01T00:00:00+00:00")
    assert latency_of(manifest, "onnx") == "-"
    assert speed_tables(manifest.get("benchmark")) == []
    assert "Latency" not in job_summary(manifest)
