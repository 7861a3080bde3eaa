"""What is read out of the compiler's log and the artifact, and what is made of it."""

from __future__ import annotations

import ast
import os
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import BertConfig, DebertaV2Config, GPT2Config

from hfexport import runtime
from hfexport._internal.workers import timeout_for
from hfexport.backends.base import Artifact
from hfexport.backends.neuron import worker
from hfexport.backends.neuron.artifact import NeuronArtifact, NeuronPart, count_subgraphs
from hfexport.backends.neuron.backend import refuse_untraceable
from hfexport.backends.neuron.compile_log import CompileLog, read_log
from hfexport.backends.neuron.plan import PartPlan
from hfexport.backends.neuron.sizes import MAX_BEAMS, Sizes, _usual_beams, choose_sizes, without_cache
from hfexport.backends.neuron.worker import environment
from hfexport.errors import CheckpointError, UnsupportedError
from hfexport.export_config import ExportConfig
from hfexport.export_config.builtin import config_class_for
from hfexport.export_config.tasks import TASKS
from hfexport.validation.neuron import NeuronReference, _compiled
from hfexport.validation.validators import _NeuronComparison

LOG = """\
some noise before any part
hfexport: compiling encoder
INFO:Neuron:There are 3 ops of 1 different types in the TorchScript that are not compiled by neuron-cc: aten::embedding,
INFO:Neuron:Number of arithmetic operators (pre-compilation) before = 565, fused = 548, percent fused = 96.99%
INFO:Neuron:Compile command returned: 0
INFO:Neuron:Number of arithmetic operators (post-compilation) before = 565, compiled = 548, percent compiled = 96.99%
2022-12-19 02:32:20,148 : INFO : Number of arithmetic operators (post-compilation) before = 565, compiled = 548, percent
INFO:Neuron:The neuron partitioner created 1 sub-graphs
INFO:Neuron:Compiled these operators (and operator counts) to Neuron:
INFO:Neuron: => aten::Int: 96
INFO:Neuron:Not compiled operators (and operator counts) to Neuron:
INFO:Neuron: => aten::embedding: 3 [not supported]
hfexport: compiling decoder
WARNING:Neuron:torch.neuron.trace failed on _NeuronGraph$551; falling back to native python function call
WARNING:Neuron:torch.neuron.trace failed on _NeuronGraph$551; falling back to native python function call
WARNING:Neuron:torch.neuron.trace failed on _NeuronGraph$552; falling back to native python function call
INFO:Neuron:Number of arithmetic operators (post-compilation) before = 2578, compiled = 146, percent compiled = 5.66%
INFO:Neuron:The neuron partitioner created 19 sub-graphs
INFO:Neuron: => aten::Int: 9 [supported]
INFO:Neuron: => aten::tanh: 2 [not supported]
hfexport: compiling model
WARNING:Neuron:No operator is placed on Neuron runtime; returning a CPU trace
"""
"""Lines as users of torch-neuron quote them in the issues of aws-neuron/aws-neuron-sdk."""


def test_the_log_is_read_part_by_part() -> None:
    parts = read_log(LOG.splitlines(keepends=True))
    assert list(parts) == ["encoder", "decoder", "model"]
    assert parts["encoder"] == CompileLog(565, 548, 1, (), {"aten::embedding": 3})
    assert parts["decoder"] == CompileLog(
        2578, 146, 19, ("_NeuronGraph$551", "_NeuronGraph$552"), {"aten::Int": 9, "aten::tanh": 2}
    )
    assert parts["model"] == CompileLog(left_on_cpu={}, cpu_trace=True)
    assert parts["encoder"].share == pytest.approx(0.9699, abs=1e-4)
    assert parts["model"].share is None
    assert read_log([]) == {}


def _config(name: str = "bert", task: str = "default") -> ExportConfig:
    configs = {"bert": BertConfig, "gpt2": GPT2Config, "deberta-v2": DebertaV2Config}
    return config_class_for(name)(configs[name](), TASKS[task])


def _part(
    *, left: int = 5, subgraphs: int = 1, archived: int = 1, log: CompileLog | None = None, operators: int = 100
) -> NeuronPart:
    return NeuronPart(
        plan=PartPlan("model", _config(), {"batch": 1, "sequence": 8}, ()),
        path=Path("model.neuron"),
        trace=Path("model.trace.pt"),
        subgraphs=subgraphs,
        archived_subgraphs=archived,
        operators={"aten::add": operators},
        cpu_operators={"aten::embedding": left} if left else {},
        log=log or CompileLog(),
    )


def test_the_share_is_the_smaller_of_what_the_graph_shows_and_what_the_compiler_says() -> None:
    assert _part(left=5).compiled_share == 0.95
    assert _part(left=5, log=CompileLog(100, 99)).compiled_share == 0.95
    assert _part(left=5, log=CompileLog(100, 50)).compiled_share == 0.5
    assert _part(left=0, subgraphs=0).compiled_share == 0
    assert _part(operators=0).compiled_share == 0
    assert _part(left=200).compiled_share == 0


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (
            _part(left=11),
            "89.0 % of operators compiled, in 1 subgraphs; on CPU: 11 aten::embedding; neuron-min-compiled",
        ),
        (_part(log=CompileLog(100, 60)), "60.0 % of operators compiled"),
        (_part(subgraphs=0, archived=0), "nothing was compiled"),
        (_part(subgraphs=2, archived=1), "the file calls 1 compiled subgraphs, the compiler returned 2"),
        (_part(left=20, log=CompileLog(fallbacks=("_NeuronGraph$1",))), "left on CPU: _NeuronGraph"),
    ],
)
def test_a_graph_that_was_not_compiled_enough_fails(part: NeuronPart, reason: str) -> None:
    check = _compiled((part,), 0.9)
    assert check.verdict == "failed" and reason in check.reason


def test_a_graph_that_was_compiled_passes_and_names_what_stays_on_cpu() -> None:
    check = _compiled((_part(left=10),), 0.9)
    assert (check.verdict, check.reason) == (
        "passed",
        "90.0 % of operators compiled, in 1 subgraphs; on CPU: 10 aten::embedding",
    )


def test_subgraphs_are_counted_in_the_code_of_the_archive_alone(tmp_path: Path) -> None:
    path = tmp_path / "model.neuron"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/code/__torch__/a.py", "x = ops.neuron.forward_v2(a)\ny, = ops.neuron.forward_1(x, )\n")
        archive.writestr("model/code/__torch__/b.py", "z = ops.neuron.forward_v2_3(y)\nops.neuron.other(z)\n")
        archive.writestr("model/data/0", "ops.neuron.forward_v2(a)")
        archive.writestr("model/code/__torch__/b.py.debug_pkl", "ops.neuron.forward_v2(a)")
    assert count_subgraphs(path) == 3
    path.write_bytes(b"no archive")
    with pytest.raises(zipfile.BadZipFile):
        count_subgraphs(path)


def test_what_the_stack_cannot_trace_is_refused_with_the_reason() -> None:
    with pytest.raises(UnsupportedError, match="deberta-v2 cannot be compiled: .*XSoftmax") as caught:
        refuse_untraceable(_config("deberta-v2"), "inf1")
    assert "ONNX or TorchScript" in caught.value.remedy
    refuse_untraceable(_config(), "inf1")


@pytest.mark.parametrize("model_type", ["convbert", "wav2vec2", "yolos"])
def test_what_crashes_with_the_torch_of_inf2_is_refused_there_alone(model_type: str) -> None:
    config = _config()
    config.config.model_type = model_type
    with pytest.raises(UnsupportedError, match=f"tracing {model_type} crashes in the Neuron SDK 2.33 with torch 2.9"):
        refuse_untraceable(config, "inf2")
    refuse_untraceable(config, "inf1")
    refuse_untraceable(_config(), "inf2")


@pytest.mark.parametrize(
    ("asked", "arguments"),
    [
        ((), ["--target", "inf2", "--native-int64", "disabled", "--implicit-integer-downcast", "all"]),
        (
            ("--native-int64=enabled", "--target", "trn2"),
            ["--native-int64=enabled", "--target", "trn2", "--implicit-integer-downcast", "all"],
        ),
    ],
)
def test_integer_flags_of_the_compiler_are_pinned_unless_asked_for(
    asked: tuple[str, ...], arguments: list[str]
) -> None:
    assert environment.compiler_arguments(asked) == arguments


@pytest.mark.parametrize(
    ("target", "given", "arguments", "expected"),
    [
        ("inf2", None, (), "inf2"),
        ("inf2", None, ("-O1", "--target", "trn1"), "trn1"),
        ("inf2", None, ("--target=trn2",), "trn2"),
        ("inf2", "trn1", (), "trn1"),
        ("inf1", None, (), None),
    ],
)
def test_the_sdk_is_told_the_platform_before_it_is_imported(
    target: str, given: str | None, arguments: tuple[str, ...], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "NEURON_PLATFORM_TARGET_OVERRIDE"
    monkeypatch.setenv(name, given or "")
    if given is None:
        monkeypatch.delenv(name)
    found: list[str | None] = []
    monkeypatch.setattr(environment, "import_module", lambda _: found.append(os.environ.get(name)))
    environment.import_sdk(target, arguments)
    assert found == [expected]


def test_a_task_with_past_is_compiled_without_it() -> None:
    assert without_cache(_config("gpt2", "causal-lm-with-past")).task.name == "causal-lm"
    assert without_cache(_config("gpt2", "default-with-past")).task.name == "default"
    config = _config()
    assert without_cache(config) is config


def test_sizes_come_from_the_inputs_and_stay_within_what_the_model_takes() -> None:
    warnings: list[str] = []
    assert choose_sizes(_config(), Sizes(batch=4, sequence=64), warnings.append) == {
        "batch": 4,
        "sequence": 64,
    }
    assert warnings == []
    assert choose_sizes(_config(), Sizes(sequence=1000), warnings.append)["sequence"] == 512
    assert warnings == ["Neuron: sequence 1000 is more than the model supports; the artifact uses 512"]


WORKER = sorted(Path(worker.__file__).parent.glob("*.py"))


def test_the_worker_and_the_run_time_are_written_for_the_oldest_python_of_the_sdk() -> None:
    home = Path(runtime.__file__).parent
    for path in (*WORKER, home / "neuron.py", home / "shapes.py", home.parent / "modeling" / "pooling.py"):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))


def test_the_worker_imports_nothing_of_hfexport() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in WORKER]
    imported = {
        name.split(".")[0]
        for tree in trees
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
    }
    assert "hfexport" not in imported
    assert imported - {"numpy", "torch", "transformers", "__future__"} <= set(__import__("sys").stdlib_module_names)


@pytest.mark.parametrize(
    ("content", "beams"),
    [
        (None, 1),
        ("{}", 1),
        ('{"num_beams": null}', 1),
        ('{"num_beams": 4}', 4),
        (f'{{"num_beams": {MAX_BEAMS}}}', 1024),
    ],
)
def test_the_usual_number_of_beams(tmp_path: Path, content: str | None, beams: int) -> None:
    if content is not None:
        (tmp_path / "generation_config.json").write_text(content)
    assert _usual_beams(tmp_path) == beams


@pytest.mark.parametrize(
    "content",
    [
        *('{"num_beams": 1e999}', '{"num_beams": 10000000000}', '{"num_beams": 0}', '{"num_beams": true}', "[]", "{"),
        *('{"num_beams": "4"}', "[" * 100_000),
        '{"num_beams": 2, "x": "' + "x" * 2**24 + '"}',
    ],
    ids=range(9),
)
def test_a_generation_config_that_is_not_to_be_trusted(tmp_path: Path, content: str) -> None:
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"generation_config\.json"):
        _usual_beams(tmp_path)


def test_the_time_limit_of_validation_is_that_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`validation-timeout`, or by the size of the weights, holds for an artifact made here and for an existing one."""
    subject = SimpleNamespace(timeout_s=7.0, checkpoint=tmp_path, atol=None, rtol=None)
    run = SimpleNamespace(folder=tmp_path, env={})
    backend = SimpleNamespace(run=run, sizes=Sizes(), warn=print)
    validator = SimpleNamespace(subject=subject, backend=backend, min_compiled=0.0)
    limits = []
    for name in ("validate_neuron", "validate_on_device"):
        monkeypatch.setattr(f"hfexport.validation.neuron.{name}", lambda *_, timeout_s, **__: limits.append(timeout_s))
    monkeypatch.setattr("hfexport.backends.neuron.backend.reopen", lambda *_: None)
    config = config_class_for("bert")(BertConfig(), TASKS["default"])
    comparison = _NeuronComparison(validator, NeuronReference({}))  # type: ignore[arg-type]
    made = object.__new__(NeuronArtifact)
    for artifact in (made, Artifact("neuron", tmp_path / "model.pt", ())):
        comparison.validate(artifact, config, ())
    assert limits == [7.0, 7.0]
    assert (timeout_for(0), timeout_for(4 * 10**9)) == (900, 4500)
