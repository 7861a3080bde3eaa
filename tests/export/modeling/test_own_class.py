"""A user's own class: exported and validated through the command line; mistakes name the class and the field.

Own code runs in a process of its own, which tests/export/run/test_isolated.py and the case `own dummies` check. The other runs
stay in this process.
"""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import transformers

from hfexport.checkpoint import open_checkpoint
from hfexport.cli.main import main
from hfexport.errors import InputsError
from hfexport.modeling.find_export_config import find_export_config
from hfexport.modeling.user_class.user_file import load_class
from tiny import make_checkpoint
from tiny.seq2seq import FEWER_LAYERS

HEADER = """
from collections import OrderedDict
from hfexport.onnx import OnnxConfig, OnnxConfigWithPast
TOKENS = {0: "batch", 1: "sequence"}
"""

ENCODER = """
class Mine(OnnxConfig):
    @property
    def inputs(self):
        return OrderedDict([("input_ids", TOKENS), ("attention_mask", TOKENS), ("token_type_ids", TOKENS)])
"""

DECODER = """
class Mine(OnnxConfigWithPast):
    @property
    def inputs(self):
        total = {0: "batch", 1: "past_sequence + sequence"} if self.use_past else TOKENS
        inputs = OrderedDict([("input_ids", TOKENS), ("attention_mask", total), ("position_ids", TOKENS)])
        if self.use_past:
            self.fill_with_past_key_values_(inputs, direction="inputs")
        return inputs

    @property
    def atol_for_validation(self):
        return 1e-4
"""

SEQ2SEQ = """
from hfexport.onnx import OnnxSeq2SeqConfigWithPast

class Mine(OnnxSeq2SeqConfigWithPast):
    @property
    def inputs(self):
        encoder, decoder = {0: "batch", 1: "encoder_sequence"}, {0: "batch", 1: "decoder_sequence"}
        names = [("input_ids", encoder), ("attention_mask", encoder)]
        names += [("decoder_input_ids", decoder), ("decoder_attention_mask", decoder)]
        return OrderedDict(names)
"""

SEQ2SEQ_WITH_PAST = SEQ2SEQ.replace(
    "        return OrderedDict(names)",
    """        inputs = OrderedDict(names)
        if self.use_past:
            # As it was usual: one new token at a time.
            inputs["decoder_input_ids"] = {0: "batch"}
            inputs["decoder_attention_mask"] = {0: "batch", 1: "past_decoder_sequence + sequence"}
            self.fill_with_past_key_values_(inputs, direction="inputs")
        return inputs""",
)

IMAGE = """
class Mine(OnnxConfig):
    @property
    def inputs(self):
        return {"pixel_values": {0: "batch", 1: "num_channels", 2: "height", 3: "width"}}
"""

DUMMIES = """
import torch

class Mine(OnnxConfig):
    # A name that hfexport knows nothing of: its values come from generate_dummy_inputs.
    @property
    def inputs(self):
        return {"inputs_embeds": {0: "batch", 1: "sequence"}}

    def generate_dummy_inputs(self, preprocessor, framework=None, **sizes):
        return {"inputs_embeds": torch.randn(2, 9, self._config.hidden_size)}
"""


@pytest.fixture(autouse=True)
def _process(request: pytest.FixtureRequest) -> None:
    if "own dummies" not in request.node.name:
        request.getfixturevalue("in_this_process")


def _run(tmp_path: Path, code: str, model_type: str, task: str, *more: str) -> tuple[int, dict]:  # type: ignore[type-arg]
    (tmp_path / "mine.py").write_text(HEADER + code)
    changes = FEWER_LAYERS.get(model_type, {})
    checkpoint = make_checkpoint(tmp_path / "checkpoint", model_type, task, tokenizer=True, **changes)
    own = f"{tmp_path / 'mine.py'}:Mine"
    output = tmp_path / "output"
    code_ = main(["--model", str(checkpoint), "--export-config", own, "--output", str(output), *more])
    return code_, json.loads((output / "hfexport.json").read_text())


@pytest.mark.parametrize(
    ("code", "model_type", "task"),
    [
        (ENCODER, "bert", "multiple-choice"),
        (DECODER, "qwen3", "causal-lm-with-past"),
        pytest.param(SEQ2SEQ, "bart", "seq2seq-lm", marks=pytest.mark.thorough),
        (SEQ2SEQ_WITH_PAST, "bart", "seq2seq-lm-with-past"),
        pytest.param(SEQ2SEQ_WITH_PAST, "t5", "default-with-past", marks=pytest.mark.thorough),
        pytest.param(IMAGE, "vit", "image-classification", marks=pytest.mark.thorough),
        pytest.param(IMAGE, "convnext", "image-classification", marks=pytest.mark.thorough),
        (DUMMIES, "bert", "token-classification"),
    ],
    ids=[
        "choices",
        "decoder",
        "encoder-decoder",
        "encoder-decoder with cache",
        "without a head",
        "image of one size",
        "image of any size",
        "own dummies",
    ],
)
def test_an_own_class_is_exported_and_validated(tmp_path: Path, code: str, model_type: str, task: str) -> None:
    if task == "multiple-choice":
        code = code.replace("TOKENS", '{0: "batch", 1: "choice", 2: "sequence"}')
    more = () if task == "causal-lm-with-past" else ("--formats", "onnx")
    exit_code, manifest = _run(tmp_path, code, model_type, task, *more)
    assert exit_code == 0
    assert manifest["verdict"] == "passed"
    assert manifest["interface"] == f"{tmp_path / 'mine.py'}:Mine"
    assert manifest["task"] == task
    assert all(len(artifact["validation"]["probes"]) >= 2 for artifact in manifest["artifacts"])
    if code == DECODER:  # has a tolerance of its own
        assert {artifact["validation"]["tolerance"]["atol"] for artifact in manifest["artifacts"]} == {1e-4}


def test_axes_that_the_model_fixes_are_fixed(tmp_path: Path) -> None:
    _, manifest = _run(tmp_path, IMAGE, "vit", "default", "--formats", "onnx", "--validate", "off")
    assert manifest["artifacts"][0]["inputs"][0]["axes"] == ["batch", 3, 32, 32]


OVERRIDES = """
    default_onnx_opset = 18
    values_override = {"hidden_act": "relu"}
"""


def test_its_opset_and_its_values_of_the_config_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exit_code, manifest = _run(tmp_path, ENCODER + OVERRIDES, "bert", "default", "--formats", "onnx")
    assert exit_code == 0
    assert manifest["artifacts"][0]["details"]["opset"] == 18
    assert "the model is called with hidden_act 'relu' in its config" in capsys.readouterr().err
    operators = {node.op_type for node in onnx.load(tmp_path / "output" / "onnx" / "model.onnx").graph.node}
    assert "Relu" in operators and not operators & {"Erf", "Gelu"}


def test_an_opset_that_is_asked_for_goes_before_its_own(tmp_path: Path) -> None:
    code = ENCODER + "    default_onnx_opset = 11\n"
    off = ("--formats", "onnx", "--validate", "off")
    exit_code, manifest = _run(tmp_path, code, "bert", "default", *off, "--opset", "19")
    assert (exit_code, manifest["artifacts"][0]["details"]["opset"]) == (0, 19)
    exit_code, manifest = _run(tmp_path, code, "bert", "default", *off)
    assert exit_code == 2
    assert "mine.py:Mine: default_onnx_opset 11 is out of range: 17 to 23" in manifest["error"]["message"]


SEQ2SEQ_MISTAKES = {
    "a cache of too few layers": (
        "    num_layers = (1, 1)\n",
        "inputs: the model does not take them: ",
    ),
    "an axis of the cache": (
        """
    def fill_with_past_key_values_(self, inputs, direction):
        super().fill_with_past_key_values_(inputs, direction)
        if direction == "inputs":
            inputs["past_key_values.0.decoder.key"] = {0: "batch", 1: "heads"}
""",
        "inputs: 'past_key_values.0.decoder.key' names axes [0, 1]; free are [0, 2]",
    ),
    "an output that is missing": (
        "    outputs = property(lambda self: {'logits': {0: 'batch'}})\n",
        "outputs: lacks present.0.decoder.key, present.0.decoder.value, present.0.encoder.key",
    ),
    "heads of another number": (
        "    num_attention_heads = (3, 2)\n",
        "inputs: the model does not take them: RuntimeError: Sizes of tensors must match",
    ),
}


@pytest.mark.parametrize("mistake", SEQ2SEQ_MISTAKES)
def test_a_mistake_in_the_cache_of_an_encoder_decoder_is_named(mistake: str, tmp_path: Path) -> None:
    code, said = SEQ2SEQ_MISTAKES[mistake]
    exit_code, manifest = _run(tmp_path, f"{SEQ2SEQ_WITH_PAST}\n{code}", "bart", "seq2seq-lm", "--formats", "onnx")
    assert exit_code == 2
    assert f"{tmp_path / 'mine.py'}:Mine: {said}" in manifest["error"]["message"]


MISTAKES = {
    "a value that the model's config does not have": (
        ENCODER + "    values_override = {'hidden_act': 'relu', 'hiden_size': 3}\n",
        "values_override: 'hiden_size' is nothing that BertConfig has",
    ),
    "an opset that is no number": (
        ENCODER + "    default_onnx_opset = 'newest'\n",
        "default_onnx_opset: must be a number of 0 or more, and is 'newest'",
    ),
    "an input that forward does not take": (
        ENCODER.replace('"token_type_ids"', '"token_kinds"'),
        "inputs: 'token_kinds' is nothing that BertForMaskedLM.forward takes: input_ids,",
    ),
    "an input of the wrong rank": (
        ENCODER.replace('("attention_mask", TOKENS)', '("attention_mask", {0: "batch"})'),
        "inputs: 'attention_mask' has 1 axes; the model takes 2",
    ),
    "an axis past the last": (
        DUMMIES.replace('1: "sequence"}', '1: "sequence", 3: "more"}'),
        "inputs: 'inputs_embeds' names axis 3, but it has 3 axes",
    ),
    "an axis that no input has": (
        ENCODER + "    outputs = property(lambda self: {'logits': {0: 'batch', 1: 'sequense'}})\n",
        "outputs: axis 1 of 'logits' is called 'sequense', and no input has an axis 'sequense'",
    ),
    "an axis of another meaning": (
        ENCODER + "    outputs = property(lambda self: {'logits': {0: 'sequence'}})\n",
        "outputs: axis 0 of 'logits' is called 'sequence'; in the model it is 'batch'",
    ),
    "an output that the model does not give": (
        ENCODER + "    outputs = property(lambda self: {'scores': {0: 'batch'}})\n",
        "outputs: 'scores' is nothing that BertForMaskedLM gives: logits",
    ),
    "axes that are none": (
        ENCODER + "    outputs = property(lambda self: {'logits': ['batch']})\n",
        "outputs: 'logits' must map the index of each free axis to a name, and has ['batch']",
    ),
    "no inputs": ("class Mine(OnnxConfig):\n    inputs = {}\n", "inputs: must map names to axes, and is {}"),
    "a property that fails": (
        "class Mine(OnnxConfig):\n    inputs = property(lambda self: self._config.no_such_thing)\n",
        "inputs: raises AttributeError: ",
    ),
    "dummies that lack an input": (
        DUMMIES.replace('return {"inputs_embeds": torch', 'return {"embeddings": torch'),
        "generate_dummy_inputs: gives no 'inputs_embeds', which is an input; it gives embeddings",
    ),
    "dummies that fail": (
        DUMMIES.replace("torch.randn(2, 9", "torch.randn(2, nine"),
        "generate_dummy_inputs: raises NameError: name 'nine' is not defined",
    ),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("bert") / "checkpoint", "bert", "masked-lm", tokenizer=True)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_names_the_class_and_the_field(mistake: str, checkpoint: Path, tmp_path: Path) -> None:
    code, said = MISTAKES[mistake]
    (tmp_path / "mine.py").write_text(HEADER + code)
    own = f"{tmp_path / 'mine.py'}:Mine"
    opened = open_checkpoint(checkpoint)
    config = transformers.AutoConfig.from_pretrained(checkpoint)
    with pytest.raises(InputsError) as caught:
        find_export_config(
            opened, config, "auto", "fp32", own=(own, load_class(own)), trust_remote_code=False, note=print
        )
    assert f"{own}: {said}" in caught.value.message


def test_a_mistake_ends_the_run_with_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = MISTAKES["a property that fails"]
    exit_code, manifest = _run(tmp_path, code, "bert", "masked-lm", "--formats", "onnx")
    assert exit_code == 2
    assert f"{tmp_path / 'mine.py'}:Mine: {said}" in manifest["error"]["message"]
    assert "Traceback" not in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["hfexport.json"]


def test_a_task_with_a_cache_needs_a_class_that_has_one(tmp_path: Path) -> None:
    code = ENCODER.replace(', ("token_type_ids", TOKENS)', "")
    exit_code, manifest = _run(tmp_path, code, "gpt2", "causal-lm", "--task", "causal-lm-with-past")
    assert exit_code == 4
    assert "causal-lm-with-past" in manifest["error"]["message"]
