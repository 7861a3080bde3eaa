"""Read images and sounds on which variants are measured, and prepare them as the checkpoint's own processor does."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from hfexport.errors import MODEL_FAILURES, InputsError, UnsupportedError, first_line
from hfexport.export_config.arrays import Arrays
from hfexport.validation.quality.data import Data

__all__ = ["prepared"]

MAX_FILE_BYTES: Final = 2**26
"""Size of the largest file that is read."""

MAX_PIXELS: Final = 50_000_000
"""Number of pixels of the largest image that is decoded."""

MAX_SECONDS: Final = 30
"""Seconds of a sound that are read."""

_IMAGE_FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
_SOUND_FORMATS: Final = ("WAV", "WAVEX", "RF64", "FLAC")

_DECODING: Final = (OSError, ValueError, SyntaxError, EOFError, struct.error, LookupError, TypeError, ArithmeticError)
"""Errors with which Pillow and libsndfile reject damaged files; the latter's are RuntimeErrors."""


def prepared(data: Data, folder: Path, *, trust_remote_code: bool) -> list[Arrays]:
    """Return the model's inputs for each image or sound, each with batch size 1.

    Args:
        data: images or sounds.
        folder: folder with the checkpoint's processor.
        trust_remote_code: run code of the processor.

    Raises:
        InputsError: a file cannot be read.
        UnsupportedError: the checkpoint has no processor for this kind of file, or it rejects one.
    """
    load, read = {"images": ("AutoImageProcessor", _image), "sounds": ("AutoFeatureExtractor", _sound)}[data.kind]
    processor = _processor(load, folder, data, trust_remote_code=trust_remote_code)
    return [_inputs(processor, path, data, read) for path in data.files]


def _processor(name: str, folder: Path, data: Data, *, trust_remote_code: bool) -> Any:
    import transformers

    from hfexport.modeling.load import quiet

    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return getattr(transformers, name).from_pretrained(
                folder, local_files_only=True, trust_remote_code=trust_remote_code
            )
        except (*MODEL_FAILURES, OSError) as error:
            what = "image processor" if data.kind == "images" else "feature extractor"
            raise UnsupportedError(
                f"eval-data {data.description}: the checkpoint has no {what} that transformers can load",
                remedy="Add preprocessor_config.json to the checkpoint, or leave eval-data out.",
            ) from error


def _inputs(processor: Any, path: Path, data: Data, read: Callable[[Path, Any], tuple[Any, dict[str, Any]]]) -> Arrays:
    from hfexport.modeling.load import quiet

    name = f"eval-data {data.description}: {path.name}"
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(
                f"has {path.stat().st_size / 1e6:.0f} MB, and at most {MAX_FILE_BYTES / 1e6:.0f} MB are read"
            )
        decoded, options = read(path, processor)
    except (*_DECODING, RuntimeError) as error:
        raise InputsError([f"{name}: cannot be read: {first_line(error, limit=200)}"]) from error
    try:
        with quiet():
            found = processor(decoded, return_tensors="np", **options)
    except MODEL_FAILURES as error:
        raise UnsupportedError(
            f"{name}: the checkpoint's processor rejects it: {first_line(error, limit=200)}",
            remedy="Leave this file out of eval-data.",
        ) from error
    return {key: np.asarray(value) for key, value in found.items() if np.asarray(value).dtype != object}


def _image(path: Path, processor: Any) -> tuple[Any, dict[str, Any]]:
    """Decode an image; its size is checked before its pixels are read."""
    from PIL import Image, UnidentifiedImageError

    del processor
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path, formats=_IMAGE_FORMATS) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise ValueError(
                        f"has {opened.width}x{opened.height} pixels, and at most {MAX_PIXELS / 1e6:.0f} million are read"
                    )
                return opened.convert("RGB"), {}
        except Image.DecompressionBombError as error:
            raise ValueError(str(error)) from error
        except UnidentifiedImageError as error:
            raise ValueError("is no image that Pillow can identify") from error


def _sound(path: Path, processor: Any) -> tuple[Any, dict[str, Any]]:
    """Decode the first seconds of a sound and mix its channels."""
    import soundfile

    with soundfile.SoundFile(path) as opened:
        if opened.format not in _SOUND_FORMATS:
            raise ValueError(f"is a file of the format {opened.format}, not WAV or FLAC")
        rate = int(getattr(processor, "sampling_rate", opened.samplerate))
        if opened.samplerate != rate:
            raise ValueError(f"has {opened.samplerate} samples a second, and the model takes {rate}; convert it")
        samples = opened.read(frames=MAX_SECONDS * rate, dtype="float32", always_2d=True)
    if not len(samples) or not np.isfinite(samples).all():
        raise ValueError("has no samples, or samples that are no numbers")
    return samples.mean(axis=1), {"sampling_rate": rate}
