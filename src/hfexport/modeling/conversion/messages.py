"""Jobs and answers of the processes that convert weights and merge adapters."""

from __future__ import annotations

from hfexport._internal.messages import Answer, Message

__all__ = ["ConversionAnswer", "ConversionJob", "MergeJob"]


class ConversionJob(Message, frozen=True):
    """Write weights as safetensors.

    Attributes:
        source: folder of the checkpoint.
        format: format of the weights, see `hfexport.checkpoint.Weights`.
        files: files of the weights.
        sharded: whether an index divides them into shards.
        architectures: class names in config.json.
        folder: folder to write; made if it does not exist.
        dequantise: whether the weights are quantised.
        unwrap: whether to remove the prefixes of wrappers, such as `module.`, from the names.
    """

    source: str
    format: str
    files: tuple[str, ...]
    sharded: bool
    architectures: tuple[str, ...]
    folder: str
    dequantise: bool
    unwrap: bool


class ConversionAnswer(Answer, frozen=True):
    """Result of a `ConversionJob`.

    Attributes:
        left_out: names of weights that the model is known not to use.
        removed_prefixes: prefixes of wrappers that were removed from the names.
    """

    left_out: tuple[str, ...]
    removed_prefixes: tuple[str, ...]


class MergeJob(Message, frozen=True):
    """Merge an adapter into its base.

    Attributes:
        adapter: folder of the adapter.
        adapter_weights: its weight file.
        base: folder of the base.
        base_name: name of the base for messages.
        dtype: dtype of the base's weights: `fp32`, `fp16`, `bf16` or `fp64`.
        bare: whether sentence-transformers loads the base as the bare model.
        folder: folder to write.
    """

    adapter: str
    adapter_weights: str
    base: str
    base_name: str
    dtype: str
    bare: bool
    folder: str
