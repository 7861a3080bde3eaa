"""The model card lists variants with their measured quality, and says how to load each."""

from __future__ import annotations

from typing import Any

from hfexport.hub.publish.card import section
from hfexport.manifest.variants import how_to_load, quality_of, variant_rows


def _entry(name: str, paths: list[str], cosine: float) -> dict[str, Any]:
    measures = [
        {"graph": "model", "name": measure, "value": cosine, "at_least": None, "at_most": None, "verdict": "passed"}
        for measure in ("mean_cosine", "worst_cosine")
    ]
    return {
        "format": "onnx",
        "name": name,
        "paths": paths,
        "files": [{"path": path, "size_bytes": 2_500_000, "sha256": "0" * 64} for path in paths],
        "size_share": 0.25,
        "notes": [],
        "quality": {"verdict": "passed", "reason": "", "data": "shipped texts", "samples": 63, "measures": measures},
    }


def _manifest(*variants: dict[str, Any]) -> Any:
    return {
        "verdict": "passed",
        "producer": {"name": "hfexport", "version": "0"},
        "source": {"hub": None, "unused_tensors": []},
        "task": "default",
        "dtype": "fp32",
        "artifacts": [],
        "variants": list(variants),
    }


def test_the_card_lists_each_variant() -> None:
    text = section(_manifest(_entry("q8", ["onnx/model_quantized.onnx"], 0.9861)), "owner/name", "")
    (row,) = [line for line in text.splitlines() if line.startswith("| q8 |")]
    assert "onnx/model_quantized.onnx | 2.5 MB | 25% | 0.9861 mean, 0.9861 worst" in row
    assert 'Transformers.js: `dtype: "q8"`' in row
    assert "measured on shipped texts" in text


def test_a_card_without_variants_says_nothing_of_them() -> None:
    assert "Variants" not in section(_manifest(), "owner/name", "")


def test_the_worst_graph_decides() -> None:
    entry: Any = _entry("int8", ["onnx/encoder_model_int8.onnx", "onnx/decoder_model_merged_int8.onnx"], 0.99)
    entry["quality"]["measures"].append({**entry["quality"]["measures"][0], "graph": "decoder", "value": 0.5})
    assert quality_of(entry) == "0.5000 mean, 0.9900 worst"
    assert "file_name" not in how_to_load(entry, _manifest())
    assert "file_name" in how_to_load(_entry("O2", ["onnx/model_O2.onnx"], 1.0), _manifest())  # type: ignore[arg-type]


def test_a_variant_that_was_not_measured_has_no_figures() -> None:
    entry: Any = _entry("int8", ["onnx/model_int8.onnx"], 0.99)
    entry["quality"] |= {"verdict": "not_run", "measures": []}
    assert variant_rows(_manifest(entry))[0][-3:] == ["-", "-", "not run"]
