"""Build, write and check `hfexport.json`: artifacts, sources, versions and validation results."""

from __future__ import annotations

import json
import math
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, cast

from hfexport import __version__
from hfexport.backends.base import Artifact
from hfexport.checkpoint import Checkpoint, Conversion, sha256
from hfexport.errors import HfexportError, InputsError, ValidationError
from hfexport.export_config import ExportConfig, TensorSpec, names_of
from hfexport.export_config.windows import unasked_thresholds
from hfexport.manifest.model import (
    SCHEMA_VERSION,
    AdapterEntry,
    ArtifactEntry,
    ConversionEntry,
    ErrorEntry,
    FileEntry,
    Format,
    GivenEntry,
    LimitEntry,
    Manifest,
    ProvenanceEntry,
    SourceEntry,
    TensorEntry,
    VariantEntry,
)
from hfexport.manifest.results import quality_entry, validation_entry
from hfexport.validation.quality import MadeVariant
from hfexport.validation.verdict import ArtifactVerdict

__all__ = [
    "MANIFEST_FILE",
    "SCHEMA_FILE",
    "Manifest",
    "artifact_entry",
    "base_entry",
    "check_manifest",
    "error_entry",
    "listed_files",
    "provenance_entry",
    "published_url",
    "source_entry",
    "source_of",
    "variant_entry",
    "write_manifest",
]

MANIFEST_FILE = "hfexport.json"
SCHEMA_FILE = Path(__file__).parent / "hfexport.schema.json"

PACKAGES = ("torch", "transformers", "onnx", "onnxruntime", "onnxscript", "onnx-ir", "numpy", "safetensors")


def new_manifest(inputs: Mapping[str, Any], created: str) -> Manifest:
    """Start a manifest with the inputs (see `run.inputs.recorded`), the versions and the machine."""
    return {
        "schema_version": SCHEMA_VERSION,
        "producer": {"name": "hfexport", "version": __version__},
        "created": created,
        "verdict": "error",
        "inputs": dict(inputs),
        "provenance": None,
        "source": None,
        "task": None,
        "interface": None,
        "dtype": None,
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": {"platform": platform.platform(), "cores": os.cpu_count() or 1, "memory_bytes": _memory_bytes()},
        "stages": [],
        "artifacts": [],
        "variants": [],
        "files": [],
        "publication": None,
        "error": None,
    }


def provenance_entry(env: Mapping[str, str]) -> ProvenanceEntry | None:
    """Return the workflow run and image that made an export; `None` outside of both.

    Args:
        env: variables of the Actions runner, and `HFEXPORT_IMAGE`, which a release's action.yml sets to its image.
    """
    image = env.get("HFEXPORT_IMAGE", "")
    on_actions = "GITHUB_RUN_ID" in env
    if not on_actions and not image:
        return None
    repository = env.get("GITHUB_REPOSITORY", "")
    run = f"{env.get('GITHUB_SERVER_URL', 'https://github.com')}/{repository}/actions/runs/{env.get('GITHUB_RUN_ID')}"
    attempt = env.get("GITHUB_RUN_ATTEMPT", "1")
    return {
        "image": image if re.fullmatch(r"[\w./:-]+@sha256:[0-9a-f]{64}", image) else None,
        "repository": repository if on_actions else None,
        "commit": env.get("GITHUB_SHA") if on_actions else None,
        "workflow": env.get("GITHUB_WORKFLOW_REF") if on_actions else None,
        "run": f"{run}/attempts/{attempt}" if on_actions else None,
    }


def source_entry(
    checkpoint: Checkpoint,
    source: GivenEntry,
    hashes: Mapping[Path, str],
    base: AdapterEntry | None = None,
    unused: Sequence[str] = (),
) -> SourceEntry:
    """Describe the source of the artifacts.

    Args:
        checkpoint: the checkpoint that was read.
        source: result of `Source.to_dict()`.
        hashes: SHA-256 of the checkpoint's files.
        base: base of an adapter, from `base_entry`.
        unused: names of the checkpoint's tensors that the model does not use.
    """
    return {
        "model": source["model"],
        "hub": source["hub"],
        "model_type": checkpoint.model_type,
        "architectures": list(checkpoint.architectures),
        "dtype": checkpoint.dtype,
        "files": _given_files(hashes),
        "weight_format": checkpoint.contents.weights.format,
        "conversion": None if checkpoint.conversion is None else _conversion_entry(checkpoint.conversion),
        "adapter": base,
        "unused_tensors": list(unused),
    }


def base_entry(source: GivenEntry, base: Checkpoint, hashes: Mapping[Path, str], kind: str) -> AdapterEntry:
    """Describe the kind of an adapter and the base that it was merged into."""
    return {
        "kind": kind,
        "base": {
            **source,
            "dtype": base.dtype,
            "files": _given_files(hashes),
            "weight_format": base.contents.weights.format,
            "conversion": None if base.conversion is None else _conversion_entry(base.conversion),
        },
    }


def source_of(manifest: Manifest) -> SourceEntry:
    """Return the source of an export.

    Raises:
        ValidationError: the manifest has no source because the run ended before it read the checkpoint.
    """
    if manifest["source"] is None:
        raise ValidationError(f"{MANIFEST_FILE}: does not name a source checkpoint")
    return manifest["source"]


def _given_files(hashes: Mapping[Path, str]) -> list[FileEntry]:
    return [{"path": path.name, "size_bytes": path.stat().st_size, "sha256": digest} for path, digest in hashes.items()]


def _conversion_entry(conversion: Conversion) -> ConversionEntry:
    """Describe the conversion of weights to PyTorch safetensors."""
    entry: ConversionEntry = {
        "left_out": list(conversion.left_out),
        "removed_prefixes": list(conversion.removed_prefixes),
        "wall_s": conversion.wall_s,
        "peak_rss_bytes": conversion.peak_rss_bytes,
    }
    if conversion.dequantised:
        entry["dequantised"] = conversion.dequantised
    return entry


def artifact_entry(
    artifact: Artifact,
    config: ExportConfig,
    dtype: str,
    folder: Path,
    verdict: ArtifactVerdict,
    digest: Callable[[Path], str] = sha256,
) -> ArtifactEntry:
    """Describe one artifact with its files (paths relative to `folder`), its interface and its validation results."""
    limits: dict[str, LimitEntry] = {
        name: {"minimum": limit.minimum, "maximum": limit.maximum}
        for name, limit in config.limits.items()
        if name in names_of(config.inputs)
    }
    return {
        "format": cast("Format", artifact.format),
        "path": artifact.path.relative_to(folder).as_posix(),
        "files": [_file_entry(path, folder, digest(path)) for path in artifact.files],
        "inputs": [_tensor_entry(spec, dtype) for spec in config.inputs],
        "outputs": [_tensor_entry(spec, dtype) for spec in config.outputs],
        "fixed_sizes": dict(artifact.fixed_sizes) or None,
        "limits": limits,
        "details": dict(artifact.details),
        "validation": {
            **validation_entry(verdict),
            "validated_up_to": _validated(artifact, config, verdict),
            "unasked_thresholds": _unasked(artifact, config, verdict),
        },
    }


def variant_entry(
    made: MadeVariant,
    folder: Path,
    digest: Callable[[Path], str] = sha256,
) -> VariantEntry:
    """Describe one variant with its files (paths relative to `folder`) and its measured quality."""
    return {
        "format": cast("Format", made.artifacts[0].format),
        "name": made.name,
        "paths": [artifact.path.relative_to(folder).as_posix() for artifact in made.artifacts],
        "files": [_file_entry(path, folder, digest(path)) for artifact in made.artifacts for path in artifact.files],
        "size_share": made.size_share,
        "notes": list(made.notes),
        "quality": quality_entry(made.quality),
    }


def published_url(manifest: Manifest) -> str:
    """Return the URL of the pull request or commit of a published export; empty if it was not published."""
    publication = manifest["publication"]
    return "" if publication is None else publication.get("pull_request_url") or publication.get("commit_url") or ""


def listed_files(manifest: Manifest) -> list[FileEntry]:
    """Return every file of an export: copied files, artifacts and variants."""
    return [
        *manifest["files"],
        *(file for artifact in manifest["artifacts"] for file in artifact["files"]),
        *(file for variant in manifest.get("variants", []) for file in variant["files"]),
    ]


def _unasked(artifact: Artifact, config: ExportConfig, verdict: ArtifactVerdict) -> dict[str, int]:
    """Return windows of the model that no probe reached; none of an artifact that was not validated or has fixed sizes."""
    if artifact.fixed_sizes or not verdict.probes:
        return {}
    return unasked_thresholds(config, [result.probe.sizes for result in verdict.probes])


def _validated(artifact: Artifact, config: ExportConfig, verdict: ArtifactVerdict) -> dict[str, int]:
    """Return the largest size in the probes of each axis that the artifact leaves free."""
    sizes = verdict.validated_up_to
    return {axis: sizes[axis] for axis in config.free_axes if axis in sizes and axis not in artifact.fixed_sizes}


def files_entry(files: Sequence[Path], folder: Path) -> list[FileEntry]:
    """List files that were copied along unchanged."""
    return [_file_entry(path, folder, sha256(path)) for path in files]


def error_entry(error: HfexportError) -> ErrorEntry:
    """Describe the error that ended a run early, with its exit code."""
    problems = error.problems if isinstance(error, InputsError) else (error.message,)
    entry: ErrorEntry = {
        "exit_code": error.exit_code,
        "title": error.title,
        "message": "\n".join(problems),
        "remedy": error.remedy,
    }
    if error.failed_by:
        entry["failed_by"] = error.failed_by
    return entry


def write_manifest(manifest: Manifest, folder: Path) -> Path:
    """Write the manifest into `folder` atomically: readers see either the old one or the new one."""
    path = folder / MANIFEST_FILE
    staged = folder / f".{MANIFEST_FILE}.part"
    staged.write_text(to_json(manifest), encoding="utf-8")
    os.replace(staged, path)
    return path


def to_json(manifest: Mapping[str, Any]) -> str:
    """Convert the manifest to JSON text; numbers that JSON cannot represent become strings."""
    return json.dumps(_encodable(manifest), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def check_manifest(manifest: Manifest) -> None:
    """Check a manifest against the published schema.

    Raises:
        jsonschema.ValidationError: the manifest does not match the schema.
    """
    import jsonschema

    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    # `jsonschema.validate` would check the schema too, which takes longer; a test does.
    errors = jsonschema.Draft202012Validator(schema).iter_errors(json.loads(to_json(manifest)))
    if (error := jsonschema.exceptions.best_match(errors)) is not None:
        raise error


def _encodable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _file_entry(path: Path, folder: Path, digest: str) -> FileEntry:
    return {"path": path.relative_to(folder).as_posix(), "size_bytes": path.stat().st_size, "sha256": digest}


def _tensor_entry(spec: TensorSpec, dtype: str) -> TensorEntry:
    floats: dict[str, Literal["float32", "float16"]] = {"fp32": "float32", "fp16": "float16"}
    element = floats[dtype] if spec.dtype == "float" else spec.dtype
    return {"name": spec.name, "dtype": element, "axes": list(spec.axes)}


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
