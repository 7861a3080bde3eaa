"""Make dummy inputs by running a preprocessor on meaningless text, images or sound."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["dummy_cache", "dummy_inputs", "load_preprocessor"]


def dummy_inputs(
    preprocessor: Any,
    *,
    batch_size: int,
    seq_length: int,
    num_choices: int | None,
    is_pair: bool,
    framework: Any,
    num_channels: int = 3,
    image_width: int = 40,
    image_height: int = 40,
    sampling_rate: int = 22050,
    time_duration: float = 5.0,
    frequency: int = 220,
) -> dict[str, Any]:
    """Return arguments for a model's `forward`, made by `preprocessor`.

    Args:
        preprocessor: a tokenizer, image processor or feature extractor of transformers.
        batch_size: number of rows.
        seq_length: number of tokens per row, including special ones.
        num_choices: size of an axis after the batch axis; `None` for no such axis.
        is_pair: rows are pairs of sentences.
        framework: type of the arrays, `pt` or `np`.
        num_channels: number of image channels.
        image_width: image width in pixels, before the processor resizes.
        image_height: image height in pixels, before the processor resizes.
        sampling_rate: sampling rate of the sound, in Hz.
        time_duration: duration of the sound, in seconds.
        frequency: frequency of the sound, in Hz.

    Raises:
        ValueError: dummy inputs cannot be made with a preprocessor of this kind.
    """
    from transformers import FeatureExtractionMixin, PreTrainedTokenizerBase
    from transformers.image_processing_base import ImageProcessingMixin

    process: Any = preprocessor  # the base classes do not define `__call__`
    if isinstance(preprocessor, PreTrainedTokenizerBase):
        return _text(process, batch_size, seq_length, num_choices, is_pair, framework)
    if isinstance(preprocessor, ImageProcessingMixin):
        rng = np.random.default_rng(0)
        shape = (image_height, image_width, num_channels)
        images = [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(batch_size)]
        return dict(process(images=images, return_tensors=framework))
    if isinstance(preprocessor, FeatureExtractionMixin):
        times = np.linspace(0, time_duration, int(time_duration * sampling_rate), endpoint=False)
        sound = [0.5 * np.sin(2 * np.pi * frequency * times)] * batch_size
        return dict(process(sound, return_tensors=framework))
    raise ValueError(
        f"no dummy inputs can be made with {type(preprocessor).__name__}: give a tokenizer, an image processor or a"
        " feature extractor, or override generate_dummy_inputs"
    )


def _text(
    tokenizer: Any, batch_size: int, seq_length: int, num_choices: int | None, is_pair: bool, framework: Any
) -> dict[str, Any]:
    words = max(1, seq_length - int(tokenizer.num_special_tokens_to_add(is_pair)))
    rows = [" ".join([tokenizer.unk_token or "0"] * words)] * (batch_size * (num_choices or 1))
    if num_choices is None:
        return dict(tokenizer(rows, return_tensors=framework))
    tokens = tokenizer(rows, text_pair=rows, return_tensors=framework)
    return {name: array.reshape(batch_size, num_choices, -1) for name, array in tokens.items()}


def dummy_cache(made: dict[str, Any], layers: int, shape: tuple[int, int, int]) -> None:
    """Add a cache of zeros to `made`, a dictionary of torch tensors, and extend its mask.

    Args:
        made: inputs with `input_ids` (batch, sequence), and optionally `attention_mask`.
        layers: number of (key, value) pairs.
        shape: (heads, past_sequence, head_size).
    """
    import torch

    batch = made["input_ids"].shape[0]
    if "attention_mask" in made:
        mask = made["attention_mask"]
        made["attention_mask"] = torch.cat([mask, torch.ones(batch, shape[1], dtype=mask.dtype)], dim=1)
    made["past_key_values"] = [(torch.zeros(batch, *shape), torch.zeros(batch, *shape)) for _ in range(layers)]


def load_preprocessor(folder: str, kind: str = "auto") -> Any:
    """Load the tokenizer or processor of a checkpoint; `None` if there is none.

    Args:
        folder: folder of the checkpoint.
        kind: `auto`, `tokenizer`, `feature_extractor`, `image_processor` or `processor`.
    """
    import transformers

    names = {
        "tokenizer": ("AutoTokenizer",),
        "feature_extractor": ("AutoFeatureExtractor",),
        "image_processor": ("AutoImageProcessor",),
        "processor": ("AutoProcessor",),
        "auto": ("AutoTokenizer", "AutoImageProcessor", "AutoFeatureExtractor"),
    }[kind]
    for name in names:
        try:
            return getattr(transformers, name).from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError):
            if kind != "auto":
                raise
    return None
