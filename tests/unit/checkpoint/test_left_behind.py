"""What looks like weights of something else in a checkpoint's folder is named."""

from __future__ import annotations

import pytest

from hfexport.checkpoint.left_behind import left_behind

USED = ("config.json", "model.safetensors", "1_Pooling/config.json", "2_Dense/pytorch_model.bin")


@pytest.mark.parametrize(
    "name", ["model_head.pkl", "sparse_linear.pt", "colbert_linear.pt", "3_CNN/cnn.bin", "head.safetensors"]
)
def test_other_weights_are_named(name: str) -> None:
    assert left_behind((*USED, name), USED) == (name,)


@pytest.mark.parametrize(
    "name",
    [
        *("pytorch_model.bin", "tf_model.h5", "model.fp16.safetensors", "pytorch_model-00001-of-00002.bin"),
        *("optimizer.pt", "rng_state_0.pth", "training_args.bin", "checkpoint-500/head.pt", "onnx/model.bin"),
        *("README.md", "tokenizer.json", "config_setfit.json", "2_Dense/model.safetensors"),
    ],
)
def test_copies_and_training_state_are_not(name: str) -> None:
    assert left_behind((*USED, name), USED) == ()
