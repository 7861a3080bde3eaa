"""Inputs: what is taken, what is refused and in which words."""

from __future__ import annotations

import dataclasses
import random
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import hfexport
from hfexport.cli.commands import EXPORT, split_command
from hfexport.cli.help import command_help
from hfexport.errors import InputsError
from hfexport.export_config.tasks import TASK_NAMES
from hfexport.run.inputs import FLAGS, InputField, Inputs, given_secrets, input_fields, parse_inputs


def _parse(*argv: str, **env: str) -> Inputs:
    return parse_inputs(argv, env)[0]


def _problems(*argv: str, env: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(InputsError) as caught:
        parse_inputs(argv, env or {})
    assert caught.value.exit_code == 2
    return caught.value.problems


def _outcome(argv: Sequence[str], env: Mapping[str, str]) -> Inputs | tuple[str, ...]:
    """The inputs, or the problems with them."""
    try:
        return parse_inputs(argv, env)[0]
    except InputsError as error:
        return error.problems


def _problem(*argv: str, env: dict[str, str] | None = None) -> str:
    problems = _problems(*argv, env=env)
    assert len(problems) == 1, problems
    return problems[0]


def test_nothing_given_is_the_defaults() -> None:
    assert _parse() == Inputs()
    assert Inputs() == Inputs(
        model=".",
        formats=("onnx", "torchscript"),
        task="auto",
        output="hfexport-out",
        opset=None,
        atol=None,
        rtol=None,
        dtype="auto",
        layout="auto",
        external_data=False,
        batch_size=1,
        sequence_length=128,
        validate="strict",
        neuron_target="inf1",
        neuron_python=None,
        neuron_compiler_args=None,
        neuron_decoder_length=None,
        neuron_beams=None,
        neuron_dynamic_batch_size=False,
        neuron_minimum_segment_size=2,
        neuron_fallback=True,
        neuron_optimizations=None,
        neuron_separate_weights="auto",
        neuron_timeout=3600,
        neuron_min_compiled=0.9,
        export_config=None,
        allow_unused=None,
        trust_remote_code=False,
    )


def test_inputs_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Inputs().model = "other"  # type: ignore[misc]


TEXTS = str(Path(hfexport.__file__).parent / "validation/quality/texts.txt")

EXAMPLES: dict[str, tuple[str, object]] = {
    "model": ("ckpt", "ckpt"),
    "revision": ("refs/pr/3", "refs/pr/3"),
    "subfolder": ("text_encoder/", "text_encoder"),
    "weights-variant": ("fp16", "fp16"),
    "base-model": ("owner/base", "owner/base"),
    "hub-token": ("hf_abc", "hf_abc"),
    "branch": ("exports", "exports"),
    "commit-message": ("Add exports", "Add exports"),
    "push-to-hub": ("org/name", "org/name"),
    "create-pr": ("true", True),
    "private": ("true", True),
    "publish-unvalidated": ("true", True),
    "dry-run": ("true", True),
    "formats": ("torchscript", ("torchscript",)),
    "task": ("masked-lm", "masked-lm"),
    "output": ("out", "out"),
    "outputs": ("attentions", ("attentions",)),
    "opset": ("18", 18),
    "atol": ("1e-4", 1e-4),
    "rtol": ("0.001", 1e-3),
    "dtype": ("fp16", "fp16"),
    "layout": ("single", "single"),
    "external-data": ("true", True),
    "batch-size": ("4", 4),
    "sequence-length": ("64", 64),
    "validate": ("off", "off"),
    "neuron-target": ("inf2", "inf2"),
    "neuron-python": ("venv/bin/python", "venv/bin/python"),
    "neuron-compiler-args": ("--fast-math 'none'", ("--fast-math", "none")),
    "neuron-decoder-length": ("20", 20),
    "neuron-beams": ("4", 4),
    "neuron-dynamic-batch-size": ("true", True),
    "neuron-minimum-segment-size": ("5", 5),
    "neuron-fallback": ("false", False),
    "neuron-optimizations": ("FLOAT32_TO_FLOAT16", ("FLOAT32_TO_FLOAT16",)),
    "neuron-separate-weights": ("true", "true"),
    "neuron-timeout": ("60", 60),
    "validation-timeout": ("1200", 1200),
    "neuron-min-compiled": ("0.75", 0.75),
    "export-config": (f"{__file__}:Mine", f"{__file__}:Mine"),
    "allow-unused": ("*.age_head.*,\nhead.bias", ("*.age_head.*", "head.bias")),
    "trust-remote-code": ("true", True),
    "allow-network": ("true", True),
    "cache": ("templates", "templates"),
    "fixed": ("batch=1, sequence=128", {"batch": 1, "sequence": 128}),
    "report": ("true", True),
    "target": ("transformersjs", ("transformersjs",)),
    "variants": ("fp16,\nq8 q4", ("fp16", "q8", "q4")),
    "eval-data": (TEXTS, TEXTS),
    "min-similarity": ("0.98", 0.98),
    "benchmark": ("true", True),
}


def test_every_input_has_an_example_here() -> None:
    assert set(EXAMPLES) == {part.name for part in input_fields()}


OF_A_PUSH = ("create-pr", "private", "publish-unvalidated", "dry-run")
"""Inputs that mean nothing unless something is published."""


OF_VARIANTS = ("eval-data", "min-similarity")
"""Inputs that mean nothing without variants."""


@pytest.mark.parametrize("name", OF_VARIANTS)
def test_what_belongs_to_variants_needs_some(name: str) -> None:
    assert "without variants" in _problem(f"--{name}", EXAMPLES[name][0])


def test_variants_are_checked_before_any_work() -> None:
    assert "did you mean int8? must be any of fp16, int8" in _problem("--variants", "fp16,int9")
    assert "means nothing without format onnx" in _problem("--variants", "int8", "--formats", "torchscript")
    assert "exclude each other" in _problem("--variants", "int8", "--fixed", "batch=1, sequence=8")
    assert "is not a file" in _problem("--variants", "int8", "--eval-data", "none.txt")
    assert "must be a .txt, .jsonl or .csv file" in _problem("--variants", "int8", "--eval-data", "none.parquet")


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_input_is_an_option_and_a_variable(name: str) -> None:
    text, value = EXAMPLES[name]
    attribute = name.replace("-", "_")
    variable = f"INPUT_{name.upper()}"
    beside = ["--push-to-hub", "org/name"] if name in OF_A_PUSH else []
    beside = ["--variants", "int8"] if name in OF_VARIANTS else beside
    if not text.startswith("-"):  # such a value needs the equals sign
        assert getattr(_parse(f"--{name}", text, *beside), attribute) == value
    assert getattr(_parse(f"--{name}={text}", *beside), attribute) == value
    assert getattr(parse_inputs(beside, {variable: text})[0], attribute) == value
    assert getattr(parse_inputs(beside, {variable: f" {text}\n"})[0], attribute) == value


@pytest.mark.parametrize("name", OF_A_PUSH)
def test_what_belongs_to_a_push_needs_one(name: str) -> None:
    assert "without push-to-hub" in _problem(f"--{name}")
    assert _parse(f"--{name}=false") == Inputs()


@pytest.mark.parametrize(
    ("name", "value"), [("minimum-segment-size", "3"), ("fallback", "false"), ("optimizations", "float32_to_float16")]
)
def test_what_is_for_inf1_alone_is_refused_for_inf2(name: str, value: str) -> None:
    given = f"--neuron-{name}={value}"
    assert f"--neuron-{name} is for Inf1 alone, but --neuron-target is inf2" in _problem("--neuron-target=inf2", given)
    assert _parse(given) != Inputs()
    defaults = {"INPUT_NEURON-FALLBACK": "true", "INPUT_NEURON-MINIMUM-SEGMENT-SIZE": "2"}
    assert parse_inputs(["--neuron-target=inf2"], defaults)[0].neuron_target == "inf2"


def test_the_models_own_repository_needs_a_model_on_the_hub() -> None:
    assert _parse("--model", "org/name", "--push-to-hub").push_to_hub == "true"
    assert _parse("--push-to-hub=false").push_to_hub is None
    assert "is a folder" in _problem("--model", ".", "--push-to-hub", "true")
    assert "must be owner/name" in _problem("--push-to-hub", "name")


def test_what_nobody_proved_is_published_only_by_name() -> None:
    push = ("--push-to-hub", "org/name", "--validate", "off")
    assert "publish-unvalidated" in _problem(*push)
    assert _parse(*push, "--publish-unvalidated").publish_unvalidated


@pytest.mark.parametrize("option", ["--atol", "--rtol"])
def test_a_loose_tolerance_is_published_only_by_name(option: str) -> None:
    push = ("--push-to-hub", "org/name", option)
    assert f"{option} is 0.05: artifacts held to a tolerance above 0.02" in _problem(*push, "0.05")
    assert _parse(*push, "0.05", "--publish-unvalidated").publish_unvalidated
    assert _parse(*push, "0.02").push_to_hub == "org/name"
    assert _parse(option, "0.05").push_to_hub is None


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_empty_variable_is_unset(name: str) -> None:
    for empty in ("", "  ", "\n"):
        assert parse_inputs([], {f"INPUT_{name.upper()}": empty})[0] == Inputs()


@pytest.mark.parametrize("name", [part.name for part in input_fields() if not part.is_boolean])
def test_an_option_without_a_value_is_refused(name: str) -> None:
    assert f"--{name} needs a value" in _problems(f"--{name}")
    assert f"--{name} needs a value" in _problems(f"--{name}", "--json")


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_empty_option_is_refused(name: str) -> None:
    assert _problem(f"--{name}=").startswith(f"--{name} is ''")


def test_an_empty_path_of_data_is_not_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "picture.png").touch()
    monkeypatch.chdir(tmp_path)
    assert _problem("--eval-data=").startswith("--eval-data is ''")


def test_all_that_the_runner_sets_when_only_one_input_is_given() -> None:
    env = {f"INPUT_{name.upper()}": part.default for part in input_fields() for name in part.names[:1]}
    env |= {"INPUT_FEATURE": "", "INPUT_MODEL": "ckpt"}
    assert parse_inputs([], env)[0] == Inputs(model="ckpt")


def test_the_command_line_wins_over_a_variable_even_a_wrong_one() -> None:
    env = {"INPUT_TASK": "nonsense", "INPUT_BATCH-SIZE": "3"}
    assert parse_inputs(["--feature", "masked-lm"], env)[0] == Inputs(task="masked-lm", batch_size=3)


def test_short_names() -> None:
    assert _parse("-m", "ckpt") == _parse("-m=ckpt") == _parse("--model", "ckpt")
    assert parse_inputs(["-h"], {})[1] == {"help"}


@pytest.mark.parametrize(
    ("text", "formats"),
    [
        ("onnx", ("onnx",)),
        ("torchscript, onnx", ("torchscript", "onnx")),
        ("onnx\ntorchscript\n", ("onnx", "torchscript")),
        ("onnx\r\ntorchscript", ("onnx", "torchscript")),
        (",onnx,,onnx,", ("onnx",)),
        ("onnx,torchscript,onnx", ("onnx", "torchscript")),
    ],
)
def test_formats(text: str, formats: tuple[str, ...]) -> None:
    assert _parse("--formats", text).formats == formats


@pytest.mark.parametrize("text", ["-0.1", "1.1", "nan", "90%", "0x1", "1e-1"])
def test_a_share_lies_between_0_and_1(text: str) -> None:
    assert "must be a number from 0 to 1, such as 0.9" in _problem("--neuron-min-compiled", text)


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("1", 1.0), ("1.0", 1.0), (".5", 0.5), ("0.9", 0.9)])
def test_shares(text: str, value: float) -> None:
    assert _parse("--neuron-min-compiled", text).neuron_min_compiled == value


def test_compiler_arguments_are_split_as_a_shell_does() -> None:
    assert _parse("--neuron-compiler-args=--a 'b c' -O2").neuron_compiler_args == ("--a", "b c", "-O2")
    assert "words as a shell splits them (no closing quotation)" in _problem("--neuron-compiler-args=--a 'b")


def test_optimizations_are_named_in_any_case() -> None:
    assert _parse("--neuron-optimizations", "float32_to_float16").neuron_optimizations == ("FLOAT32_TO_FLOAT16",)
    assert "did you mean" not in _problem("--neuron-optimizations", "fast")


@pytest.mark.parametrize("text", ["tflite", "ONNX", "onnx torchscript", "onnx;torchscript", "onnx,tflite"])
def test_wrong_formats_are_named_with_what_is_allowed(text: str) -> None:
    problem = _problem("--formats", text)
    assert problem.startswith(f"--formats is {text!r}: ")
    assert "allowed: onnx, torchscript, neuron" in problem


def test_formats_that_name_nothing() -> None:
    assert "at least one of onnx, torchscript, neuron" in _problem("--formats", " , ")


def test_every_task_is_allowed() -> None:
    for task in ("auto", *TASK_NAMES):
        assert _parse("--task", task).task == task


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("sequence-clasification", "sequence-classification"),
        ("Causal-LM", "causal-lm"),
        ("text-classification", "sequence-classification"),
        ("fill-mask", "masked-lm"),
        ("text-generation", "causal-lm-with-past"),
        ("feature-extraction", "default"),
    ],
)
def test_a_task_that_was_meant(text: str, meant: str) -> None:
    problem = _problem("--task", text)
    assert problem.startswith(f"--task is {text!r}: did you mean {meant}? allowed: auto, ")
    assert all(name in problem for name in TASK_NAMES)


def test_a_task_like_no_other_gets_no_guess() -> None:
    assert "did you mean" not in _problem("--task", "zzz")


@pytest.mark.parametrize(("text", "meant"), [("float16", "fp16"), ("FP32", "fp32"), ("float32", "fp32")])
def test_a_dtype_that_was_meant(text: str, meant: str) -> None:
    assert f"did you mean {meant}?" in _problem("--dtype", text)


@pytest.mark.parametrize("text", ["true", "True", "TRUE"])
def test_true(text: str) -> None:
    assert parse_inputs([], {"INPUT_EXTERNAL-DATA": text})[0].external_data is True


@pytest.mark.parametrize("text", ["false", "False", "FALSE"])
def test_false(text: str) -> None:
    assert _parse(f"--external-data={text}").external_data is False


@pytest.mark.parametrize("text", ["yes", "no", "1", "0", "on", "off", "y", "tRUE", "truee"])
def test_booleans_are_strict(text: str) -> None:
    expected = f"INPUT_EXTERNAL-DATA is {text!r}: allowed: true, false"
    assert _problem(env={"INPUT_EXTERNAL-DATA": text}) == expected
    assert _problem("--external-data", text).endswith("allowed: true, false")


def test_a_bare_boolean_option_is_true() -> None:
    assert _parse("--external-data") == Inputs(external_data=True)
    assert _parse("--external-data", "--opset", "18") == Inputs(external_data=True, opset=18)
    assert _parse("--external-data", "false") == Inputs()


INTEGERS = ("opset", "batch-size", "sequence-length")


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize(
    "text", ["0", "-1", "+1", "1.0", "1e2", "1_000", "0x10", "\u0663", "\u00b2", "many", "2147483648", "9" * 5000]
)
def test_integers_are_strict(name: str, text: str) -> None:
    problem = _problem(f"--{name}", text)
    assert problem.startswith(f"--{name} is '")
    assert problem.endswith("must be a whole number from 1 to 2147483647")
    assert len(problem) < 200


@pytest.mark.parametrize("name", INTEGERS)
def test_the_largest_integer(name: str) -> None:
    assert getattr(_parse(f"--{name}", "2147483647"), name.replace("-", "_")) == 2147483647


@pytest.mark.parametrize("name", ["atol", "rtol"])
@pytest.mark.parametrize(
    "text", ["-1e-5", "nan", "inf", "-inf", "1e999", "1_0.0", "1,5", "1e", "e-5", ".", "small", "\u0661", "0x1p-3"]
)
def test_tolerances_are_strict(name: str, text: str) -> None:
    assert _problem(f"--{name}={text}") == f"--{name} is {text!r}: must be a number of at least 0, such as 1e-5"


@pytest.mark.parametrize(("text", "value"), [("1e-5", 1e-5), ("0.5", 0.5), (".5", 0.5), ("2.", 2.0), ("1E+1", 10.0)])
def test_tolerances(text: str, value: float) -> None:
    assert _parse("--rtol", text).rtol == value


def test_an_absolute_tolerance_given_alone_is_absolute() -> None:
    assert (_parse("--atol", "1e-4").atol, _parse("--atol", "1e-4").rtol) == (1e-4, 0.0)
    assert Inputs(atol=1e-4).rtol == 0.0
    both = parse_inputs(["--atol", "1e-4"], {"INPUT_RTOL": "1e-3"})[0]
    assert (both.atol, both.rtol) == (1e-4, 1e-3)
    assert (_parse("--rtol", "1e-3").atol, _parse("--rtol", "1e-3").rtol) == (None, 1e-3)


def test_an_alias() -> None:
    assert _parse("--feature", "masked-lm").task == "masked-lm"
    assert _parse(INPUT_FEATURE="masked-lm").task == "masked-lm"
    assert _parse("--feature", "masked-lm", "--task", "masked-lm").task == "masked-lm"


def test_an_alias_beside_the_default_that_the_runner_sets() -> None:
    assert _parse(INPUT_TASK="auto", INPUT_FEATURE="masked-lm").task == "masked-lm"
    assert _parse(INPUT_TASK="masked-lm", INPUT_FEATURE="auto").task == "masked-lm"
    assert _parse(INPUT_TASK="auto", INPUT_FEATURE="auto").task == "auto"


def test_an_alias_that_contradicts() -> None:
    expected = "INPUT_TASK 'masked-lm' and INPUT_FEATURE 'causal-lm' contradict each other: give one of them"
    assert _problem(env={"INPUT_TASK": "masked-lm", "INPUT_FEATURE": "causal-lm"}) == expected
    problem = _problem("--feature", "causal-lm", "--task", "auto")
    assert problem == "--feature 'causal-lm' and --task 'auto' contradict each other: give one of them"


def test_an_option_given_twice() -> None:
    assert _parse("--formats", "onnx, torchscript", "--formats=onnx,torchscript") == Inputs()
    problem = _problem("--formats", "onnx", "--formats", "torchscript")
    assert problem == "--formats 'onnx' and --formats 'torchscript' contradict each other: give one of them"


@pytest.mark.parametrize("part", input_fields(), ids=lambda part: part.name)
def test_an_option_that_was_meant(part: InputField) -> None:
    name = part.name
    for misspelt in {name[:-1], name + name[-1], name.upper()} - {"output"}:  # `output` is an input as well
        assert f"--{misspelt} is not an option: did you mean --{name}?" in _problems(f"--{misspelt}", "value")


def test_options_are_not_abbreviated_and_underscores_are_no_hyphens() -> None:
    assert _problem("--batch_size", "2") == "--batch_size is not an option: did you mean --batch-size?"
    assert _problem("--exter=true") == "--exter is not an option: see --help"


def test_an_unknown_option_takes_its_value_with_it() -> None:
    assert _problem("--modle", "ckpt") == "--modle is not an option: did you mean --model?"
    assert _problem("-x") == "-x is not an option: see --help"


@pytest.mark.parametrize("word", ["ckpt", "", "-"])
def test_an_argument_without_a_name(word: str) -> None:
    assert _problem(word).startswith(("unexpected argument", "- is not an option"))


@pytest.mark.parametrize("flag", FLAGS)
def test_flags(flag: str) -> None:
    assert parse_inputs([f"--{flag}"], {})[:2] == (Inputs(), frozenset({flag}))
    if flag in ("json", "verbose"):
        assert _problem(f"--{flag}=1") == f"--{flag} takes no value, but has '1'"
        assert parse_inputs([], {f"INPUT_{flag.upper()}": "true"})[:2] == (Inputs(), frozenset())


def test_help_and_version_come_before_anything_wrong() -> None:
    for flag in ("help", "version"):
        assert flag in parse_inputs(["--bogus", "--opset", "x", f"--{flag}"], {"INPUT_MODLE": "x"})[1]


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("INPUT_MODLE", "INPUT_MODEL"),
        ("INPUT_FORMAT", "INPUT_FORMATS"),
        ("INPUT_EXTERNAL_DATA", "INPUT_EXTERNAL-DATA"),
        ("INPUT_BATCH_SIZE", "INPUT_BATCH-SIZE"),
        ("INPUT_SEQUENCE-LENGHT", "INPUT_SEQUENCE-LENGTH"),
    ],
)
def test_a_variable_that_was_meant(variable: str, meant: str) -> None:
    assert _problem(env={variable: "x"}) == f"{variable} is not an input: did you mean {meant}?"
    assert parse_inputs([], {variable: " "})[0] == Inputs()


def test_variables_of_others_are_left_alone() -> None:
    env = {"INPUT_TOKEN": "x", "INPUT_GITHUB-TOKEN": "y", "INPUT_ARGS": "z", "INPUT_ENTRYPOINT": "w", "MODEL": "v"}
    assert parse_inputs([], env)[0] == Inputs()


@pytest.mark.parametrize("name", ["a b", "-x", "/x", "x..y", "x~1", "x^", "x:y", "x?", "x*", "x[", "x\\y"])
def test_revisions_that_git_does_not_have_are_refused(name: str) -> None:
    assert "must be a branch" in _problem(f"--revision={name}")


@pytest.mark.parametrize("folder", ["/abs", "..", "a/../b", "a//b", "./a", "a\\b"])
def test_a_subfolder_stays_inside(folder: str) -> None:
    assert "inside the repository" in _problem(f"--subfolder={folder}")


SECRET = "hf_secret words"


def test_a_secret_is_never_shown() -> None:
    given = [["--hub-token", SECRET], [f"--hub-token={SECRET}"], ["--hub-token", "hf_1", "--hub-token", "hf_2"]]
    for argv in given:
        assert "hf_1" not in _problem(*argv)
        assert SECRET not in _problem(*argv)
    assert "a secret" in _problem(env={"INPUT_HUB-TOKEN": SECRET})
    assert "hf_abc" not in repr(_parse("--hub-token", "hf_abc"))


def test_whatever_is_given_for_a_secret_can_be_hidden_first() -> None:
    assert given_secrets(["--hub-token", SECRET, "--bad"], {}) == (SECRET,)
    assert given_secrets([f"--hub-token={SECRET}"], {"INPUT_HUB-TOKEN": "x"}) == (SECRET, "x")
    assert given_secrets(["--model", "x"], {"INPUT_MODEL": "y"}) == ()


def test_all_problems_at_once() -> None:
    problems = _problems(
        *("--modle", "x", "stray", "--task", "maskd-lm", "--opset"),
        env={"INPUT_EXTERNAL-DATA": "yes", "INPUT_ATOL": "tiny", "INPUT_BATCH_SIZE": "2", "INPUT_OUTPUT": "."},
    )
    assert [problem.split(":")[0] for problem in problems] == [
        "--modle is not an option",
        "--opset needs a value",
        "unexpected argument 'stray'",
        "INPUT_BATCH_SIZE is not an input",
        "--task is 'maskd-lm'",
        "INPUT_ATOL is 'tiny'",
        "INPUT_EXTERNAL-DATA is 'yes'",
        "INPUT_OUTPUT is '.', the checkpoint's own folder",
    ]


def test_output_may_be_inside_the_model_or_beside_it(tmp_path: Path) -> None:
    for output in (tmp_path / "ckpt/out", tmp_path / "out", tmp_path / "ckpt-out"):
        assert _parse("--model", str(tmp_path / "ckpt"), "--output", str(output)).output == str(output)


def test_output_must_not_be_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "ckpt"
    model.mkdir()
    (tmp_path / "link").symlink_to(model)
    monkeypatch.chdir(tmp_path)
    for output in (str(model), "ckpt", "./ckpt/", "ckpt/../ckpt", "link"):
        problem = _problem("--model", str(model), "--output", output)
        assert (
            problem == f"--output is {output!r}, the checkpoint's own folder: choose another one, such as hfexport-out"
        )
    assert "checkpoint's own folder" in _problem("--model", "not-there", "--output", "./not-there")


def test_output_must_not_hold_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep/ckpt").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    for output in (".", "deep", str(tmp_path), "/", "link", "link/deep"):
        problem = _problem("--model", "deep/ckpt", "--output", output)
        assert problem.startswith(f"--output is {output!r}, which holds the checkpoint 'deep/ckpt': ")


def test_a_model_named_like_the_default_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert _problem("--model", "hfexport-out").startswith("the output folder is 'hfexport-out', the checkpoint's own")


def test_output_must_be_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("content", encoding="utf-8")
    for output in (file, file / "below"):
        assert _problem("--output", str(output)) == f"--output is {str(output)!r}: {file} is a file, not a folder"


@pytest.mark.parametrize("path", ["a" * 5000, "a\udcffb", "loop/x"])
def test_odd_paths_raise_nothing_else(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for argv in (["--model", path], ["--output", path], ["--model", path, "--output", path]):
        outcome = _outcome(argv, {})
        assert isinstance(outcome, Inputs) or all("output" in problem for problem in outcome)


def test_a_path_with_a_zero_byte_is_refused() -> None:
    assert "must be the path of a folder" in _problem("--model", "a\0b")


def test_no_command_line_raises_anything_but_an_inputs_error() -> None:
    rng = random.Random(7)
    words = [f"--{name}" for part in input_fields() for name in part.names]
    words += ["-m", "--json", "--", "-", "", "=", "--=", "--model=", "--task=x=y", "-7=", "--\n"]
    words += ["onnx", "1", "-1", "true", "auto", "é"]
    for _ in range(2000):
        argv = rng.choices(words, k=rng.randint(0, 6))
        env = {
            f"INPUT_{''.join(rng.choices(string.ascii_uppercase + '-_ ', k=rng.randint(0, 8)))}": rng.choice(words)
            for _ in range(2)
        }
        outcome = _outcome(argv, env)
        assert isinstance(outcome, Inputs) or (outcome and all(problem.strip() for problem in outcome))


def test_help_shows_everything_and_fits() -> None:
    text = command_help(EXPORT)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 104
    for part in input_fields():
        assert any(f"--{name}" in line for line in lines for name in part.names)
        assert f"[default: {part.default}]" in " ".join(text.split()) or not part.default
        assert part.description in " ".join(text.split())
    assert all(f"--{flag}" in text for flag in FLAGS)
    assert all(task in text for task in TASK_NAMES)


def test_a_bare_command_line_is_an_export_and_takes_the_model_without_its_name() -> None:
    for words in (["ckpt", "--opset", "18"], ["export", "--opset=18", "ckpt"], ["--opset", "18", "--model", "ckpt"]):
        command, arguments = split_command(words)
        assert command is EXPORT
        assert parse_inputs(arguments, {}, command.syntax).inputs == Inputs(model="ckpt", opset=18)


def test_verify_takes_its_own_options_alone() -> None:
    command, arguments = split_command(["verify", "--atol", "1e-4", "out"])
    parsed = parse_inputs(arguments, {"INPUT_OPSET": "18"}, command.syntax)
    assert parsed.positional == "out"
    assert parsed.inputs.atol == 1e-4
    with pytest.raises(InputsError) as caught:
        parse_inputs(["out", "--push-to-hub", "org/name", "--opest", "3", "more"], {}, command.syntax)
    assert caught.value.problems[:2] == (
        "--push-to-hub is not an option of hfexport verify: see hfexport verify --help",
        "--opest is not an option: did you mean --opset?",
    )
    with pytest.raises(InputsError, match="verify needs what to verify"):
        parse_inputs([], {}, command.syntax)


def test_two_models_contradict_each_other() -> None:
    with pytest.raises(InputsError, match="argument model 'one' and --model 'two' contradict"):
        parse_inputs(["one", "--model", "two"], {}, EXPORT.syntax)


def test_words_after_a_double_dash_are_no_options() -> None:
    assert parse_inputs(["--opset", "18", "--", "-ckpt"], {}, EXPORT.syntax).inputs == Inputs(model="-ckpt", opset=18)
    assert _problem("--", "--opset") == "unexpected argument '--opset': every input has a name, such as --model"


def test_a_command_that_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputsError, match="'verfy' is neither a command nor a folder: did you mean hfexport verify"):
        split_command(["verfy", "out"])
    (tmp_path / "verfy").mkdir()
    assert split_command(["verfy"]) == (EXPORT, ["verfy"])


def test_each_command_has_help_of_its_own() -> None:
    text = command_help(split_command(["verify"])[0])
    assert "--neuron-python" in text
    assert "--push-to-hub" not in text
    assert "Source checkpoint" in text
    assert max(map(len, text.splitlines())) <= 104


@pytest.mark.parametrize("variant", ["fp16/..", "a.b", "x y"])
def test_a_variant_is_a_part_of_a_file_name(variant: str) -> None:
    assert "the part of a file name" in _problem(f"--weights-variant={variant}")
