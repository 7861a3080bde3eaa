"""The frozen class `Inputs`, which defines options, `INPUT_*`, action.yml and the tables of docs/inputs.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

from hfexport.backends.onnx.targets import TARGETS
from hfexport.backends.variants import VARIANTS
from hfexport.run.inputs import parsers
from hfexport.run.inputs.input_field import InputField
from hfexport.run.inputs.input_field import input_field as _input

__all__ = [
    "FLAGS",
    "OUTPUTS",
    "Inputs",
    "deciding_inputs",
    "input_fields",
    "recorded",
]

OUTPUTS: Final[Mapping[str, str]] = {
    "manifest": "Path of hfexport.json.",
    "output": "Folder that holds the artifacts and the manifest.",
    "report": "Path of report.html; empty without the input report.",
    "onnx": "Path of the ONNX graph; empty if none was made.",
    "torchscript": "Path of the TorchScript file; empty if none was made.",
    "neuron": "Path of the Neuron file; empty if none was made.",
    "max-abs-diff": "Largest absolute difference from the model over all artifacts and probes.",
    "verdict": "passed, incomplete (every check that could be run passed; some could not be run), failed, "
    "not_validated or error.",
    "published": "committed, pull_request, nothing_to_do or dry_run; empty if nothing was to be published.",
    "commit-url": "Address of the commit that holds the artifacts on the Hub.",
    "pr-url": "Address of the pull request.",
}
"""Outputs of the action and their descriptions."""


FLAGS: Final[Mapping[str, str]] = {
    "json": "Print the manifest on stdout; everything else goes to stderr.",
    "verbose": "Show every line of a compiler's output, and with an error also the exception behind it.",
    "version": "Show the version and exit.",
    "help": "Show this text and exit.",
}
"""Options of the command line that are not inputs; they take no value."""


@dataclass(frozen=True)
class Inputs:
    """Checked values of all inputs. Field names are input names with `_` for `-`."""

    model: str = _input(
        ".",
        "Checkpoint folder, relative to the working directory (on Actions, the workspace), or a model on the Hub: "
        "owner/name.",
        parsers.path,
        concerns="source",
        group="common",
    )
    revision: str = _input(
        "main",
        "Branch, tag, commit or refs/pr/N of a model on the Hub.",
        parsers.revision,
        concerns="source",
        group="common",
    )
    subfolder: str | None = _input(
        "",
        "Folder inside the model's repository that holds the checkpoint.",
        parsers.folder_inside,
        group="checkpoint",
    )
    base_model: str | None = _input(
        "",
        "Base of an adapter (LoRA, …), a folder or owner/name; if unset, the one that the adapter names.",
        parsers.path,
        group="checkpoint",
    )
    weights_variant: str | None = _input(
        "",
        "Variant of the weight files to read, as transformers and diffusers name it: fp16 for model.fp16.safetensors.",
        parsers.variant,
        group="checkpoint",
    )
    hub_token: str | None = _input(
        "",
        "Token for the Hub, to publish, and for private and gated models; if unset, HF_TOKEN, a trusted publisher "
        "(with permission id-token: write) or a stored login.",
        parsers.secret,
        concerns="source",
        group="checkpoint",
    )
    formats: tuple[str, ...] = _input(
        "onnx,torchscript",
        "Artifacts to make: any of onnx, torchscript, neuron; separated by commas or newlines.",
        parsers.formats,
        group="common",
    )
    task: str = _input(
        "auto",
        "auto (what the checkpoint was trained for), or a feature name of transformers.onnx such as "
        "sequence-classification or causal-lm-with-past.",
        parsers.TASK,
        aliases=("feature",),
        group="common",
    )
    target: tuple[str, ...] | None = _input(
        "",
        "Consumers to write further files for, beside the ONNX files: any of "
        + ", ".join(TARGETS)
        + "; separated by commas or newlines.",
        parsers.targets,
    )
    fixed: Mapping[str, int] | None = _input(
        "",
        "Sizes of free axes to fix in ONNX graphs, for compilers that take no dynamic shapes: batch=1, sequence=128; if "
        "unset, all stay free.",
        parsers.fixed_sizes,
    )
    variants: tuple[str, ...] | None = _input(
        "",
        "Further ONNX and TorchScript files with smaller weights or fused operators, measured against the model: any of "
        + ", ".join(VARIANTS)
        + "; separated by commas or newlines. See docs/variants.md.",
        parsers.variants,
        group="common",
    )
    eval_data: str | None = _input(
        "",
        "Data on which variants are measured: a .txt, .jsonl or .csv file of texts, or a folder of images or sounds; if "
        "unset, a small multilingual set of texts.",
        parsers.data_file,
        group="validation",
    )
    min_similarity: float | None = _input(
        "",
        "Least mean cosine similarity between the outputs of a variant and the model's, from 0 to 1; if unset, by the "
        "kind of the variant.",
        parsers.share,
        group="validation",
    )
    benchmark: bool = _input(
        "false",
        "Measure the latency of the model in eager PyTorch and of every ONNX and TorchScript file, variants included, for at "
        "most 10 minutes: true or false. See docs/benchmark.md.",
        parsers.boolean,
        group="validation",
    )
    outputs: tuple[str, ...] | None = _input(
        "",
        "Further outputs of every graph: any of attentions, hidden_states, as attentions.0, cross_attentions.0, …; if "
        "unset, those that config.json asks for.",
        parsers.further_outputs,
        group="artifacts",
    )
    output: str = _input(
        "hfexport-out", "Folder for the artifacts and the manifest.", parsers.path, concerns="place", group="common"
    )
    report: bool = _input(
        "false",
        "Write report.html into the output folder: results, charts and provenance in one page; also after a failure: true "
        "or false.",
        parsers.boolean,
        concerns="place",
        group="common",
    )
    opset: int | None = _input(
        "", "ONNX opset, 17 to 23; if unset, the architecture's own, usually 20.", parsers.positive_integer
    )
    atol: float | None = _input(
        "",
        "Absolute tolerance of validation; if unset, by dtype and architecture. If set without rtol, rtol is 0.",
        parsers.tolerance,
        group="validation",
    )
    rtol: float | None = _input(
        "",
        "Relative tolerance of validation; if unset, by dtype and architecture, or 0 if atol is given.",
        parsers.tolerance,
        group="validation",
    )
    validation_timeout: int | None = _input(
        "",
        "Seconds that the reference and each artifact may take in validation; if unset, 900 and 900 more for every GB of "
        "weights.",
        parsers.positive_integer,
        concerns="place",
        group="validation",
    )
    dtype: str = _input(
        "auto", "fp32, fp16, or auto: as the checkpoint, bfloat16, and fp16 of bloom, widened to fp32.", parsers.DTYPE
    )
    layout: Literal["auto", "split", "single"] = _input(
        "auto",
        "Graphs of an encoder-decoder: auto (encoder and decoder, which in ONNX is one file with and without cache, as "
        "Optimum and Transformers.js load it), split (decoder and decoder with past apart) or single (one graph, as "
        "transformers.onnx wrote it).",
        parsers.Choice(("auto", "split", "single")),
    )
    external_data: bool = _input(
        "false", "Write ONNX weights to model.onnx_data also below 2 GB: true or false.", parsers.boolean
    )
    cache: str | None = _input(
        "",
        "Folder for graph templates: later exports of the same architecture reuse the graph and stream their weights "
        "into it; made if it is not there. If unset, every graph is captured anew.",
        parsers.path,
        concerns="place",
    )
    batch_size: int = _input(
        "1",
        "Batch size of a Neuron artifact, and of a TorchScript trace that cannot be shape-free.",
        parsers.positive_integer,
    )
    sequence_length: int = _input(
        "128",
        "Sequence length of a Neuron artifact, and of a TorchScript trace that cannot be shape-free; at most what the "
        "model takes.",
        parsers.positive_integer,
    )
    validate: str = _input(
        "strict",
        "strict, or off: artifacts are written unproved and the manifest says so.",
        parsers.Choice(("strict", "off")),
        group="validation",
    )
    push_to_hub: str | None = _input(
        "",
        "Repository on the Hub to publish to in one commit, owner/name; true: the model's own. If unset, nothing is "
        "published.",
        parsers.push,
        concerns="place",
        group="common",
    )
    branch: str = _input(
        "main", "Branch to publish to; made if it is not there.", parsers.revision, concerns="place", group="publishing"
    )
    create_pr: bool = _input(
        "false",
        "Publish as a pull request; an open one for the same source is updated.",
        parsers.boolean,
        concerns="place",
        group="publishing",
    )
    private: bool = _input(
        "false",
        "If the repository has to be made, make it private.",
        parsers.boolean,
        concerns="place",
        group="publishing",
    )
    commit_message: str | None = _input(
        "",
        "First line of the commit's message; if unset, it says what was exported.",
        parsers.line,
        concerns="place",
        group="publishing",
    )
    publish_unvalidated: bool = _input(
        "false",
        "Publish although validate is off or atol or rtol is above 0.02, which is refused otherwise.",
        parsers.boolean,
        concerns="place",
        group="publishing",
    )
    dry_run: bool = _input(
        "false",
        "Say what would be published, file by file, and publish nothing.",
        parsers.boolean,
        concerns="place",
        group="publishing",
    )

    neuron_target: str = _input(
        "inf1",
        "Chip to compile for: inf1, or inf2 (also for Trn1 and Trn2).",
        parsers.Choice(("inf1", "inf2")),
        group="neuron",
    )
    neuron_python: str | None = _input(
        "",
        "Python of an environment with the Neuron SDK for the target; if unset, the one that the image carries.",
        parsers.program,
        group="neuron",
    )
    neuron_compiler_args: tuple[str, ...] | None = _input(
        "",
        "Arguments for neuron-cc (Inf1) or neuronx-cc (Inf2), as a shell would split them.",
        parsers.words,
        group="neuron",
    )
    neuron_decoder_length: int | None = _input(
        "",
        "Tokens that a Neuron artifact of an encoder-decoder can write; if unset, sequence-length.",
        parsers.positive_integer,
        group="neuron",
    )
    neuron_beams: int | None = _input(
        "",
        "Beams for which such an artifact is made; if unset, as the checkpoint's generation config.",
        parsers.positive_integer,
        group="neuron",
    )
    neuron_dynamic_batch_size: bool = _input(
        "false",
        "Let the Neuron artifact take any batch, in parts of batch-size: true or false.",
        parsers.boolean,
        group="neuron",
    )
    neuron_minimum_segment_size: int = _input(
        "2",
        "Fewer operators than this in a row stay on CPU (Inf1).",
        parsers.positive_integer,
        group="neuron",
    )
    neuron_fallback: bool = _input(
        "true",
        "Leave operators that cannot be compiled on CPU, or fail: true or false (Inf1).",
        parsers.boolean,
        group="neuron",
    )
    neuron_optimizations: tuple[str, ...] | None = _input(
        "",
        "Optimisations of torch_neuron: FLOAT32_TO_FLOAT16 (Inf1).",
        parsers.optimizations,
        group="neuron",
    )
    neuron_separate_weights: str = _input(
        "auto",
        "Keep weights beside the compiled graph, whose format ends at 2 GB: true, false, or auto (above 1.9 GB).",
        parsers.Choice(("auto", "true", "false")),
        group="neuron",
    )
    neuron_timeout: int = _input(
        "3600",
        "Seconds that compiling one graph for Neuron may take.",
        parsers.positive_integer,
        group="neuron",
    )
    neuron_min_compiled: float = _input(
        "0.9",
        "Share of operators that must have been compiled for Neuron, from 0 to 1.",
        parsers.share,
        group="neuron",
    )
    export_config: str | None = _input(
        "",
        "path/file.py:Class in the workspace: an export config of your own, for an architecture that hfexport does not"
        " know. Its code is run.",
        parsers.class_reference,
        group="checkpoint",
    )
    allow_unused: tuple[str, ...] | None = _input(
        "",
        "Tensors of the checkpoint that may stay out of the export although the model has no place for them: names or "
        "patterns such as *.age_head.*, separated by commas or newlines.",
        parsers.patterns,
        group="checkpoint",
    )
    trust_remote_code: bool = _input(
        "false",
        "Run code that the checkpoint carries (auto_map in config.json): true or false.",
        parsers.boolean,
        group="checkpoint",
    )
    allow_network: bool = _input(
        "false",
        "Leave the network to the process that exports and validates, for code of the checkpoint or of export-config that "
        "needs it: true or false.",
        parsers.boolean,
        concerns="place",
        group="checkpoint",
    )

    def __post_init__(self) -> None:
        """Set `rtol` to 0 if only `atol` is given."""
        if self.atol is not None and self.rtol is None:
            object.__setattr__(self, "rtol", 0.0)


def input_fields() -> tuple[InputField, ...]:
    """Return every input in the order of `Inputs`."""
    return tuple(InputField(part.name.replace("_", "-"), **part.metadata) for part in fields(Inputs))


def recorded(inputs: Inputs) -> dict[str, Any]:
    """Return the inputs as JSON values for the manifest, without secrets."""
    values = {part.attribute: getattr(inputs, part.attribute) for part in input_fields() if not part.is_secret}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def deciding_inputs() -> dict[str, str]:
    """Return the names, by attribute, of inputs that decide what is made; a new value outdates earlier exports."""
    return {part.attribute: part.name for part in input_fields() if part.concerns == "artifacts"}
