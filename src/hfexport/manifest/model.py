"""The manifest as typed data. `hfexport.manifest.schema` derives the JSON schema from these types.

The types are dictionaries (`TypedDict`), so `json` reads and writes a manifest directly; mypy checks every key.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NotRequired, TypedDict

from msgspec import Meta

from hfexport.manifest.quality_model import MeasureEntry, QualityEntry
from hfexport.manifest.scalars import Commit, Count, Number, Seconds, Sha256
from hfexport.manifest.speed_model import BenchmarkEntry

__all__ = [
    "SCHEMA_VERSION",
    "AdapterEntry",
    "ArtifactEntry",
    "BaseEntry",
    "BenchmarkEntry",
    "CheckEntry",
    "ConstantEntry",
    "ConversionEntry",
    "DistancesEntry",
    "Dtype",
    "ErrorEntry",
    "FileEntry",
    "Format",
    "GivenEntry",
    "HubEntry",
    "LimitEntry",
    "MachineEntry",
    "Manifest",
    "MeasureEntry",
    "Number",
    "OperationEntry",
    "OutputEntry",
    "ProbeEntry",
    "ProducerEntry",
    "ProvenanceEntry",
    "PublicationEntry",
    "PublicationState",
    "QualityEntry",
    "SourceEntry",
    "StageEntry",
    "TensorEntry",
    "ToleranceEntry",
    "ValidationEntry",
    "VariantEntry",
    "WeightsEntry",
    "WorstEntry",
]

SCHEMA_VERSION: Final = 1

Dtype = Literal["fp32", "fp16"]
Format = Literal["onnx", "torchscript", "neuron"]
WeightFormat = Literal["safetensors", "pytorch", "tensorflow-h5", "tensorflow-safetensors"]
PublicationState = Literal["committed", "pull_request", "nothing_to_do", "dry_run"]
ManifestVerdict = Literal["passed", "incomplete", "failed", "not_validated", "error"]


class ProducerEntry(TypedDict):
    """The program that made the manifest."""

    name: Literal["hfexport"]
    version: str


class ProvenanceEntry(TypedDict):
    """The workflow run and the image that made an export; null where unknown."""

    image: str | None
    repository: str | None
    commit: str | None
    workflow: str | None
    run: str | None


class HubEntry(TypedDict):
    """A model on the Hub: the requested revision, and the commit that it resolved to."""

    repository: str
    revision: str
    commit: Commit
    subfolder: str


class GivenEntry(TypedDict):
    """A model as the user named it, and its place on the Hub (null for a folder)."""

    model: str
    hub: HubEntry | None


class FileEntry(TypedDict):
    """A file by its path, size and SHA-256."""

    path: str
    size_bytes: Count
    sha256: Sha256


class ConversionEntry(TypedDict):
    """The conversion of weights from another format to PyTorch safetensors."""

    left_out: list[str]
    removed_prefixes: NotRequired[list[str]]
    dequantised: NotRequired[str]
    wall_s: Seconds
    peak_rss_bytes: Count


class BaseEntry(TypedDict):
    """The base that an adapter was merged into."""

    model: str
    hub: HubEntry | None
    dtype: str
    files: list[FileEntry]
    weight_format: WeightFormat
    conversion: ConversionEntry | None


class AdapterEntry(TypedDict):
    """An adapter: its kind and its base."""

    kind: str
    base: BaseEntry


class SourceEntry(TypedDict):
    """The checkpoint that the artifacts were made from."""

    model: str
    hub: HubEntry | None
    model_type: str
    architectures: list[str]
    dtype: str
    files: list[FileEntry]
    weight_format: WeightFormat
    conversion: ConversionEntry | None
    adapter: AdapterEntry | None
    unused_tensors: NotRequired[
        Annotated[
            list[str], Meta(description="Tensors of the checkpoint that the model does not take; absent: unknown.")
        ]
    ]


class MachineEntry(TypedDict):
    """The machine that made an export."""

    platform: str
    cores: Count
    memory_bytes: Count


class StageEntry(TypedDict):
    """One step of a run: its duration, and the peak memory of the parent process."""

    name: str
    seconds: Seconds
    peak_memory_bytes: Count


class IsolationEntry(TypedDict):
    """Isolation of the process that exports and validates: each kind of access is `denied`, or the reason why not."""

    network: str
    files: Annotated[str, Meta(description="Reading login files, and writing outside of the staging folder.")]
    processes: Annotated[str, Meta(description="Memory and environment of other processes.")]


class TensorEntry(TypedDict):
    """An input or output. Each axis is a name or a sum of names if it is free, and a number if it is fixed."""

    name: str
    dtype: Literal["int64", "bool", "float32", "float16"]
    axes: list[str | int]


class LimitEntry(TypedDict):
    """The smallest and largest size of a free axis; `maximum` is null if there is no limit."""

    minimum: Count
    maximum: int | None


class ToleranceEntry(TypedDict):
    """Allowed difference of a value: `atol + rtol * |reference|`."""

    atol: Annotated[float, Meta(ge=0)]
    rtol: Annotated[float, Meta(ge=0)]


class WorstEntry(TypedDict):
    """The element that is closest to its tolerance, or exceeds it most."""

    index: list[Count]
    artifact: Number
    reference: Number


class DistancesEntry(TypedDict):
    """Largest differences from the model in higher precision, over the readable positions, and the allowed one."""

    exact: Literal["fp32", "fp64"]
    artifact: Number
    eager: Number
    allowed: Number


class OutputEntry(TypedDict):
    """One output of one probe; `problem` is empty if it passed."""

    name: str
    dtype: str
    shape: list[Count]
    max_abs: Number
    max_rel: Number
    tolerance_share: NotRequired[
        Annotated[Number, Meta(description="Largest difference relative to its tolerance; at most 1 if passed.")]
    ]
    worst: WorstEntry | None
    problem: str
    distances: Annotated[
        DistancesEntry | None, Meta(description="Set where the model in higher precision judged the output.")
    ]


class ProbeEntry(TypedDict):
    """One probe with its sizes by axis."""

    name: str
    sizes: dict[str, Count]
    padding: Literal["none", "right", "left"]
    greedy_steps: Count
    verdict: Literal["passed", "failed"]
    problem: str
    outputs: list[OutputEntry]


class CheckEntry(TypedDict):
    """An additional check of an artifact besides its probes; with `not_run`, `reason` says why."""

    name: str
    verdict: Literal["passed", "failed", "not_run"]
    reason: str
    tolerance: ToleranceEntry | None
    max_abs_diff: Number
    probes: list[ProbeEntry]


class ConstantEntry(TypedDict):
    """A stored tensor that comes from no tensor of the model."""

    name: str
    size_bytes: Count


class WeightsEntry(TypedDict):
    """Stored tensors: bytes that are equal to the model's, and constants that come from no tensor of the model."""

    proved_bytes: Count
    constants: list[ConstantEntry]


class ValidationEntry(TypedDict):
    """Validation results of an artifact."""

    verdict: Literal["passed", "failed", "incomplete", "not_run"]
    reason: str
    session: str
    tolerance: ToleranceEntry | None
    tolerance_share: NotRequired[
        Annotated[Number, Meta(description="Largest difference relative to its tolerance; at most 1 if passed.")]
    ]
    loose_tolerance: NotRequired[Annotated[bool, Meta(description="A part of the tolerance is larger than 0.02.")]]
    max_abs_diff: Number
    max_rel_diff: Number
    probes: list[ProbeEntry]
    checks: list[CheckEntry]
    weights: NotRequired[WeightsEntry | None]
    validated_up_to: NotRequired[
        Annotated[dict[str, Count], Meta(description="Largest size of each free axis in the probes.")]
    ]
    unasked_thresholds: NotRequired[
        Annotated[
            dict[str, Count],
            Meta(description="Lengths above which the model computes differently, and which no probe exceeds."),
        ]
    ]
    left_out: NotRequired[Annotated[list[str], Meta(description="Outputs of the model that were not compared.")]]


class ArtifactEntry(TypedDict):
    """An artifact: its files, its interface and its validation results."""

    format: Format
    path: str
    files: Annotated[list[FileEntry], Meta(min_length=1)]
    inputs: list[TensorEntry]
    outputs: list[TensorEntry]
    fixed_sizes: dict[str, Count] | None
    limits: dict[str, LimitEntry]
    details: dict[str, Any]
    validation: ValidationEntry


class VariantEntry(TypedDict):
    """A variant: further files of the model, equal to it only within a measured loss."""

    format: Format
    name: str
    paths: Annotated[list[str], Meta(min_length=1, description="One file for each graph of the model.")]
    files: Annotated[list[FileEntry], Meta(min_length=1)]
    size_share: Annotated[float, Meta(ge=0, description="Size relative to the float32 files.")]
    notes: list[str]
    quality: QualityEntry


class OperationEntry(TypedDict):
    """One change of a commit."""

    operation: Literal["add", "replace", "delete"]
    path: str
    size_bytes: NotRequired[Count]
    sha256: NotRequired[Sha256]


class PublicationEntry(TypedDict):
    """Result of publishing: the changes and their destination."""

    state: PublicationState
    repository: str
    branch: str
    commit: str | None
    commit_url: str | None
    pull_request_url: str | None
    operations: list[OperationEntry]


class ErrorEntry(TypedDict):
    """The error that ended a run early, with its exit code."""

    exit_code: Count
    title: str
    message: str
    remedy: str
    failed_by: NotRequired[
        Annotated[
            Literal["network", "machine"], Meta(description="Set if the same run may succeed later or elsewhere.")
        ]
    ]


class Manifest(TypedDict):
    """Record of an export: artifacts, sources, versions and validation results."""

    schema_version: Literal[1]
    producer: ProducerEntry
    created: Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}T")]
    verdict: ManifestVerdict
    inputs: dict[str, Any]
    provenance: ProvenanceEntry | None
    source: SourceEntry | None
    task: str | None
    interface: Annotated[
        str | None,
        Meta(description="Source of the inputs and outputs: built in, inferred from the model, or a user's class."),
    ]
    dtype: Dtype | None
    versions: dict[str, str]
    machine: MachineEntry
    stages: list[StageEntry]
    artifacts: list[ArtifactEntry]
    variants: NotRequired[Annotated[list[VariantEntry], Meta(description="Absent in manifests of earlier versions.")]]
    benchmark: NotRequired[
        Annotated[BenchmarkEntry | None, Meta(description="Null or absent without the input `benchmark`.")]
    ]
    files: list[FileEntry]
    isolation: NotRequired[
        Annotated[IsolationEntry | None, Meta(description="Absent if no separate process was used.")]
    ]
    publication: Annotated[
        PublicationEntry | None,
        Meta(description="Published changes; null in the published copy of the manifest."),
    ]
    error: ErrorEntry | None
