"""Complete manifests for tests: every field is set, and every figure is a different number."""

from __future__ import annotations

from typing import Any

from hfexport.manifest.entries import new_manifest
from hfexport.manifest.model import Manifest
from hfexport.run.inputs import Inputs, recorded

__all__ = ["HOSTILE", "failed_manifest", "full_manifest", "hostile_manifest"]

HOSTILE = "<script>document.title='taken'</script><img src=x onerror=alert(1)>\"'&{{ 7*7 }}\u202egnp.exe\x00"


def full_manifest(model: str = "org/model") -> Manifest:
    """Return a manifest that passed, with two artifacts, further checks, a publication and an adapter."""
    manifest = new_manifest(recorded(Inputs(model=model)), "2026-11-28T12:00:00+00:00")
    files = [_file("config.json", 733), _file("model.safetensors", 90_101_777)]
    hub = {"repository": model, "revision": "main", "commit": "a" * 40, "subfolder": ""}
    base = {"model": "org/base", "hub": None, "dtype": "bf16", "files": [_file("base.safetensors", 4_001)]}
    manifest.update(
        {  # type: ignore[typeddict-item]
            "verdict": "incomplete",
            "provenance": {
                "image": "ghcr.io/org/hfexport@sha256:" + "c" * 64,
                "repository": "org/repository",
                "commit": "b" * 40,
                "workflow": "org/repository/.github/workflows/export.yml@refs/heads/main",
                "run": "https://github.com/org/repository/actions/runs/1/attempts/1",
            },
            "source": {
                **{"model": model, "hub": hub, "model_type": "bert", "architectures": ["BertModel"], "dtype": "fp32"},
                **{"files": files, "weight_format": "safetensors", "conversion": _conversion(1.91, 812_003)},
                "adapter": {
                    "kind": "LoRA",
                    "base": {**base, "weight_format": "pytorch", "conversion": _conversion(2.17, 512_009)},
                },
                "unused_tensors": ["pooler.dense.weight"],
            },
            **{"task": "feature-extraction", "interface": "built in", "dtype": "fp32"},
            "stages": [
                {"name": "Export to onnx", "seconds": 12.345, "peak_memory_bytes": 445_001_001},
                {"name": "Validation of onnx/model.onnx", "seconds": 0.047, "peak_memory_bytes": 445_102_001},
            ],
            "isolation": {"network": "denied", "files": "denied", "processes": "denied"},
            "artifacts": [_onnx(), _torchscript()],
            "variants": [_variant("fp16", 45_100_301, 0.4991), _variant("int8", 22_900_607, 0.2533)],
            "benchmark": _benchmark(),
            "files": [_file("tokenizer.json", 466_247)],
            "publication": {
                **{"state": "pull_request", "repository": model, "branch": "main", "commit": "d" * 40},
                "commit_url": "https://huggingface.co/org/model/commit/" + "d" * 40,
                "pull_request_url": "https://huggingface.co/org/model/discussions/7",
                "operations": [{"operation": "add", "path": "onnx/model.onnx", "size_bytes": 90_387_606}],
            },
        }
    )
    return manifest


def failed_manifest() -> Manifest:
    """Return a manifest of a failed validation: outputs out of tolerance, not comparable, and a probe without answer."""
    manifest = full_manifest("org/failing")
    artifact = manifest["artifacts"][0]
    validation = artifact["validation"]
    validation["verdict"], validation["reason"] = "failed", "2 of 3 probes failed"
    validation["max_abs_diff"], validation["tolerance_share"] = 51.25, "inf"
    first, second, _ = validation["probes"]
    for probe in (first, second):
        probe["verdict"] = "failed"
    first["outputs"][0] |= {"problem": "51.2 off", "max_abs": 51.25, "tolerance_share": 8_193.5}
    second["outputs"][0] |= {"problem": "not a number", "max_abs": "nan", "tolerance_share": "inf", "worst": None}
    validation["probes"].append(
        {
            **{"name": "batch 8", "sizes": {"batch": 8}, "padding": "none", "greedy_steps": 0, "verdict": "failed"},
            **{"problem": "the run time ended by signal 11", "outputs": []},
        }
    )
    error: Any = {"exit_code": 6, "title": "Validation failed", "message": "51.2 off", "remedy": "Nothing was left."}
    manifest |= {"verdict": "failed", "error": error, "publication": None}
    return manifest


def hostile_manifest() -> Manifest:
    """Return a manifest in which every text that a checkpoint or a user chooses is hostile."""
    manifest: Any = _hostile(full_manifest())
    return manifest


def _hostile(value: Any) -> Any:
    if isinstance(value, dict) and "measures" in value:
        return value
    chosen = ("model", "model_type", "architectures", "path", "name", "reason", "problem", "interface", "repository")
    if isinstance(value, dict):
        return {key: _appended(item) if key in chosen else _hostile(item) for key, item in value.items()}
    return [_hostile(item) for item in value] if isinstance(value, list) else value


def _appended(value: Any) -> Any:
    if isinstance(value, str):
        return value and value + HOSTILE
    return [_appended(item) for item in value] if isinstance(value, list) else _hostile(value)


def _onnx() -> dict[str, Any]:
    tolerance = {"atol": 1.5e-5, "rtol": 1.25e-4}
    return {
        **{"format": "onnx", "path": "onnx/model.onnx", "files": [_file("onnx/model.onnx", 90_387_606)]},
        "inputs": [
            {"name": "input_ids", "dtype": "int64", "axes": ["batch", "sequence"]},
            {"name": "past.0.key", "dtype": "float32", "axes": ["batch", 12, "past_sequence", 64]},
        ],
        "outputs": [{"name": "last_hidden_state", "dtype": "float32", "axes": ["batch", "sequence", 384]}],
        "fixed_sizes": None,
        "limits": {"sequence": {"minimum": 1, "maximum": 511}, "batch": {"minimum": 1, "maximum": None}},
        "details": {
            **{"opset": 20, "nodes": 266, "external_data": False, "ir_version": 9},
            "operators": {"Add": 61, "MatMul": 48, "Softmax": 6, "LayerNormalization": 13},
        },
        "validation": {
            **{"verdict": "incomplete", "reason": "", "session": "default", "tolerance": tolerance},
            **{"tolerance_share": 0.7512, "loose_tolerance": False, "max_abs_diff": 8.7e-6, "max_rel_diff": 2.3e-4},
            "probes": [
                _probe("batch 1, sequence 7", 7, 8.7e-6, 0.7512),
                _probe("batch 3, sequence 29, right padding", 29, 4.1e-7, 0.0213),
                _probe("batch 1, sequence 511", 511, 0.0, 0.0),
            ],
            "checks": [
                {
                    **{"name": "fp64 reference", "verdict": "not_run", "reason": "needs more memory"},
                    **{
                        "tolerance": tolerance,
                        "max_abs_diff": 6.6e-6,
                        "probes": [_probe("batch 2", 19, 6.6e-6, 0.331)],
                    },
                }
            ],
            "weights": {"proved_bytes": 90_000_128, "constants": [{"name": "shape", "size_bytes": 24}]},
            **{"validated_up_to": {"batch": 3, "sequence": 509}, "unasked_thresholds": {"sliding_window": 4_096}},
            "left_out": ["pooler_output"],
        },
    }


def _torchscript() -> dict[str, Any]:
    artifact = _onnx()
    artifact |= {"format": "torchscript", "path": "torchscript/model.pt", "fixed_sizes": {"batch": 1, "sequence": 128}}
    artifact["files"] = [_file("torchscript/model.pt", 91_100_200)]
    artifact["details"] = {"nodes": 472, "untied_tensors": 2, "operators": {"aten::linear": 73, "prim::Constant": 311}}
    validation = artifact["validation"]
    validation |= {"verdict": "passed", "max_abs_diff": 1.1e-6, "max_rel_diff": 3.9e-5, "tolerance_share": 0.0907}
    validation["probes"] = [_probe("batch 1, sequence 128", 128, 1.1e-6, 0.0907)]
    validation["probes"][0]["outputs"][0]["distances"] = {
        **{"exact": "fp64", "artifact": 1.17e-6, "eager": 1.31e-6, "allowed": 1.29e-5},
    }
    validation["checks"] = []
    return artifact


def _variant(name: str, size_bytes: int, share: float) -> dict[str, Any]:
    graph = {"graph": "model", "verdict": "passed"}
    return {
        **{"format": "onnx", "name": name, "paths": [f"onnx/model_{name}.onnx"], "size_share": share},
        **{"files": [_file(f"onnx/model_{name}.onnx", size_bytes)], "notes": [f"2 of 74 matrices stay as in {name}"]},
        "quality": {
            **{"verdict": "passed", "reason": "", "data": "texts of hfexport", "samples": 61},
            "measures": [
                graph | {"name": "mean_cosine", "value": 0.9973 - share / 100, "at_least": 0.985, "at_most": None},
                graph | {"name": "worst_cosine", "value": 0.9817 - share / 100, "at_least": 0.945, "at_most": None},
                graph | {"name": "kl_divergence", "value": 0.00213, "at_least": None, "at_most": 0.0217},
            ],
        },
    }


def _benchmark() -> dict[str, Any]:
    def contender(name: str, variant: str | None, size_bytes: int, factor: float) -> dict[str, Any]:
        timings: list[dict[str, Any]] = [_timing(0, 7.203 * factor), _timing(1, 98.71 * factor)]
        timings[1]["tokens_per_s"] = round(8_000 / factor, 3)
        if variant == "int8":
            timings[1] = {"call": 1, "reason": "the runtime rejects it"}
        return {
            **{
                "name": name,
                "format": None if name.startswith("eager") else name.split(maxsplit=1)[0].lower(),
                "variant": variant,
            },
            **{"paths": [f"onnx/model_{variant}.onnx"] if variant else [], "size_bytes": size_bytes, "rounds": 3},
            **{"reason": "", "timings": timings},
        }

    out = {"name": "TorchScript", "format": "torchscript", "variant": None, "paths": ["torchscript/model.pt"]}
    return {
        **{"threads": 4, "budget_s": 601.5, "seconds": 83.217, "attention": "sdpa"},
        "calls": [
            {"graph": "model", "name": "batch 1, sequence 32", "kind": "call", "sizes": {"batch": 1, "sequence": 32}},
            {
                "graph": "model",
                "name": "decode, batch 8",
                "kind": "decode",
                "sizes": {"batch": 8, "past_sequence": 128},
            },
        ],
        "contenders": [
            contender("eager PyTorch", None, 90_101_777, 1.0),
            contender("ONNX", None, 90_387_606, 0.87),
            {**out, "size_bytes": 91_100_200, "rounds": 1, "reason": "ended by SIGSEGV", "timings": []},
            contender("ONNX fp16", "fp16", 45_100_301, 1.13),
            contender("ONNX int8", "int8", 22_900_607, 0.41),
        ],
    }


def _timing(call: int, median_ms: float) -> dict[str, Any]:
    spread = {"p10_ms": round(0.93 * median_ms, 4), "p90_ms": round(1.11 * median_ms, 4)}
    return {"call": call, "median_ms": round(median_ms, 4), **spread, "repetitions": 57 + call}


def _probe(name: str, sequence: int, difference: float, share: float) -> dict[str, Any]:
    worst = {"index": [0, sequence - 1, 37], "artifact": -0.197975561 - difference, "reference": -0.197975561}
    output = {
        **{"name": "last_hidden_state", "dtype": "float32", "shape": [1, sequence, 384], "max_abs": difference},
        **{"max_rel": 1.5 * difference, "tolerance_share": share, "worst": worst, "problem": "", "distances": None},
    }
    return {
        **{"name": name, "sizes": {"batch": 1, "sequence": sequence}, "padding": "right", "greedy_steps": 16},
        **{"verdict": "passed", "problem": "", "outputs": [output]},
    }


def _conversion(wall_s: float, memory: int) -> dict[str, Any]:
    return {"left_out": ["position_ids"], "removed_prefixes": [], "wall_s": wall_s, "peak_rss_bytes": memory}


def _file(path: str, size_bytes: int) -> dict[str, Any]:
    return {"path": path, "size_bytes": size_bytes, "sha256": f"{size_bytes:064x}"}
