"""TensorFlow checkpoints, read without TensorFlow, answer as TensorFlow did."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hfexport.errors import CheckpointError
from hfexport.modeling.conversion.tensorflow.rules import Rules, rules_for
from tensorflow_checkpoints import COMMITTED, TOLERANCE, convert, largest_difference

CHECKPOINTS = sorted(path.parent.name for path in COMMITTED.glob("*/reference.npz"))


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_model_answers_as_tensorflow_did(name: str, tmp_path: Path) -> None:
    convert(COMMITTED / name, tmp_path / "converted")
    differences = largest_difference(COMMITTED / name, tmp_path / "converted")
    assert differences
    assert max(differences.values()) < TOLERANCE, differences


def _changed(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> Path:
    """A TensorFlow checkpoint with other weights."""
    shutil.copytree(COMMITTED / "TFBertForSequenceClassification-safetensors", folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "tf"})
    return folder


KERNEL = "bert/encoder/layer_._0/intermediate/dense/kernel:0"
MISFITS: dict[str, tuple[Callable[[dict[str, np.ndarray]], object], str]] = {
    "missing": (lambda weights: weights.pop(KERNEL), "bert.encoder.layer.0.intermediate.dense.weight"),
    "left over": (lambda weights: weights.update({"bert/extra/kernel:0": weights[KERNEL]}), "bert/extra/kernel:0"),
    "twice": (
        lambda weights: weights.update({"a___bert/encoder/layer_._0/intermediate/dense/kernel:0": weights[KERNEL]}),
        "both belong at bert.encoder.layer.0.intermediate.dense.weight",
    ),
    "misshapen": (lambda weights: weights.update({KERNEL: weights[KERNEL].T.copy()}), KERNEL),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_a_weight_without_its_one_place_is_named(kind: str, tmp_path: Path) -> None:
    change, message = MISFITS[kind]
    with pytest.raises(CheckpointError) as caught:
        convert(_changed(tmp_path / "checkpoint", change), tmp_path / "converted")
    assert message in caught.value.message
    assert not (tmp_path / "converted" / "model.safetensors").exists()


def test_what_older_classes_stored_in_vain_is_left_out_and_named(tmp_path: Path) -> None:
    """The pooler of a class that has no use for it."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(COMMITTED / "TFBertForMaskedLM", folder)
    with h5py.File(folder / "tf_model.h5", "a") as file:
        file["bert/tf_bert_for_masked_lm/bert/pooler/dense/bias:0"] = np.ones(16, np.float32)
    answer = convert(folder, tmp_path / "converted")
    assert list(answer["left_out"]) == ["bert/pooler/dense/bias:0"]
    assert max(largest_difference(folder, tmp_path / "converted").values()) < TOLERANCE


def test_a_layer_that_others_share_must_be_stored_alike(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(COMMITTED / "TFBertForMaskedLM", folder)
    names: list[str] = []
    with h5py.File(folder / "tf_model.h5", "a") as file:
        file.visit(names.append)
        copies = [name for name in names if name.endswith("bert/embeddings/word_embeddings/weight:0")]
        assert len(copies) == 2
        file[copies[1]][0, 0] += 1
    with pytest.raises(CheckpointError, match="a second time, with other values"):
        convert(folder, tmp_path / "converted")


def test_weights_that_only_pytorch_ties_keep_their_own_values(tmp_path: Path) -> None:
    """MobileBERT's decoder is a weight of its own in TensorFlow, with other values in this checkpoint."""
    folder = COMMITTED / "TFMobileBertForMaskedLM"
    convert(folder, tmp_path / "converted")
    config = json.loads((tmp_path / "converted" / "config.json").read_bytes())
    assert config["tie_word_embeddings"] is False


def test_weights_tell_the_class_where_the_config_does_not(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(COMMITTED / "TFBertForSequenceClassification", folder)
    config = json.loads((folder / "config.json").read_bytes())
    del config["architectures"]
    (folder / "config.json").write_text(json.dumps(config))
    convert(folder, tmp_path / "converted")
    shutil.copyfile(COMMITTED / "TFBertForSequenceClassification" / "config.json", folder / "config.json")
    assert max(largest_difference(folder, tmp_path / "converted").values()) < TOLERANCE


def _stored_otherwise(folder: Path, **options: Any) -> Path:
    """A checkpoint whose weights HDF5 stores in another way than Keras does."""
    shutil.copytree(COMMITTED / "TFBertForSequenceClassification", folder)
    with h5py.File(folder / "tf_model.h5", "a") as file:
        name = "bert/tf_bert_for_sequence_classification/bert/pooler/dense/kernel:0"
        data = file[name][:]
        del file[name]
        external = options.pop("external", None)
        if external is None:
            file.create_dataset(name, data=data, **options)
        else:
            file.create_dataset(name, data.shape, data.dtype, external=[(str(external), 0, data.nbytes)])
    return folder


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(2000))
    with pytest.raises(CheckpointError, match="pooler/dense/kernel:0 is compressed, in pieces or in another file"):
        convert(_stored_otherwise(tmp_path / "checkpoint", external=secret), tmp_path / "converted")


def test_compressed_weights_are_refused(tmp_path: Path) -> None:
    folder = _stored_otherwise(tmp_path / "checkpoint", compression="gzip")
    with pytest.raises(CheckpointError, match="is compressed, in pieces or in another file"):
        convert(folder, tmp_path / "converted")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(COMMITTED / "TFBertForSequenceClassification", folder)
    path = folder / "tf_model.h5"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="damaged HDF5 file"):
        convert(folder, tmp_path / "converted")


def test_rules_are_found_by_model_type() -> None:
    assert rules_for("mpnet").left_out
    assert rules_for("bert").leaves_out("bert.pooler.dense.bias")
    assert not rules_for("bert").leaves_out("bert.encoder.layer.0.output.dense.bias")
    assert rules_for("nothing-special") == Rules(("nothing-special",))


DAMAGE = """
import random, sys
from pathlib import Path
from hfexport.checkpoint.keras_file import stored_tensors
from hfexport.errors import CheckpointError

whole, folder = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
ended = {"read": 0, "refused": 0}
for seed in range(150):
    draw = random.Random(seed)
    data = bytearray(whole)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        # Near what HDF5's structures start with: group trees, name heaps, symbol tables, the superblock.
        mark = data.find(draw.choice((b"TREE", b"HEAP", b"SNOD", b"\\x89HDF")), draw.randrange(len(data)))
        at = draw.randrange(len(data)) if mark < 0 else min(len(data) - 1, mark + draw.randrange(64))
        data[at] = draw.choice((0, 255, draw.randrange(256)))
    path = folder / f"{seed}.h5"
    path.write_bytes(data)
    try:
        for tensor in stored_tensors(path, shard=False):
            tensor.read()
        ended["read"] += 1
    except CheckpointError as error:
        assert str(path) in error.message
        ended["refused"] += 1
print(ended)
"""


def test_damaged_structure_is_read_or_refused(tmp_path: Path) -> None:
    """In a process of its own, as always: it must neither crash nor hang nor end in a traceback."""
    path = COMMITTED / "TFViTForImageClassification" / "tf_model.h5"
    command = [sys.executable, "-c", DAMAGE, str(path), str(tmp_path)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert "'refused': 0" not in ran.stdout
