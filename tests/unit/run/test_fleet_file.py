"""A fleet file: what it may say, and that every mistake in it is named with its line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from hfexport.errors import InputsError
from hfexport.run.fleet.expand import Member, expand
from hfexport.run.fleet.file import read_fleet
from hfexport.run.fleet.model import SCHEMA_FILE, entry_inputs
from hfexport.run.fleet.plan import fleet_file, matrix
from hfexport.run.inputs import input_fields

SCHEMA = json.loads(
    (Path(sys.modules[entry_inputs.__module__].__file__ or "").with_name(SCHEMA_FILE)).read_text(encoding="utf-8")
)

EXAMPLE = """\
defaults: { formats: onnx, create-pr: true }
models:
  - model: org/classifier
  - model: org/embedder
    task: sentence-embedding
  - collection: org/release-2026-11
  - search: { author: org, tags: [export] }
"""


def _written(folder: Path, text: str) -> Path:
    path = folder / "models.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def _problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(InputsError) as caught:
        read_fleet(_written(folder, text))
    return [problem.replace(f"{folder}/", "") for problem in caught.value.problems]


def _members(folder: Path, text: str) -> tuple[Member, ...]:
    return expand(read_fleet(_written(folder, text)), "out", lambda: pytest.fail("no Hub"), lambda _: None)


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    groups = read_fleet(_written(tmp_path, EXAMPLE))
    assert [group.key for group in groups] == ["model", "model", "collection", "search"]
    inputs = groups[1].inputs("org/embedder", "out")
    assert (inputs.task, inputs.formats, inputs.create_pr) == ("sentence-embedding", ("onnx",), True)
    assert inputs.push_to_hub == "true", "a pull request is opened somewhere"


def test_all_mistakes_at_once_with_line_and_field(tmp_path: Path) -> None:
    text = """\
defaults: { format: onnx, opset: x, hub-token: hf_x }
models:
  - model: org/classifier
    opset: [1, 2]
    atol: 5
    push-to-hub: true
  - tasks: sentence-embedding
  - collection: release
    model: x
  - search: { auther: org, limit: 0 }
  - glob: models/*
    formats: [onxx, torchscript]
    formats: onnx
  - 5
  - {model: a/b, create-pr: yes}
"""
    assert _problems(tmp_path, text) == [
        "models.yaml:1: format is not a key of defaults: did you mean formats?",
        "models.yaml:1: hub-token: a token has no place in a file; set HF_TOKEN",
        "models.yaml:4: opset must be one value, not a list",
        "models.yaml:7: tasks is not a key of an entry of models: did you mean task?",
        "models.yaml:7: an entry needs exactly one of model, collection, search, glob; it has none of them",
        "models.yaml:8: an entry needs exactly one of model, collection, search, glob; it has model and collection",
        "models.yaml:10: auther is not a key of search: did you mean author?",
        "models.yaml:10: search: limit: Expected int >= 1",
        "models.yaml:13: formats is given twice",
        "models.yaml:14: an entry of models must be a mapping (key: value), not '5'",
        "models.yaml:1: opset is 'x': must be a whole number from 1 to 2147483647",
        (
            "models.yaml:5: atol is 5: artifacts held to a tolerance above 0.02 are published only with"
            " publish-unvalidated: true"
        ),
        "models.yaml:15: create-pr is 'yes': allowed: true, false",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "models.yaml: is empty: list models"),
        ("models: [", "models.yaml:1: is not YAML: expected the node content, but found '<stream end>'"),
        ("- a", "models.yaml:1: the file must be a mapping (key: value), not a list"),
        ("defaults: {}", "models.yaml:1: models is missing: list at least one model"),
        ("models: []", "models.yaml:1: models must be a list of at least one entry, not a list"),
        ("models:\n- model: ", "models.yaml:2: model must be one text, not nothing"),
        ("models:\n- {model: a/b, task: x}", "models.yaml:2: task is 'x': "),
        ("models:\n- {model: a/b, task: auto, feature: auto}", "another name of an input that is given as well"),
        ("models:\n- {model: a/b, formats: []}", "models.yaml:2: formats is an empty list: leave it out"),
        ("models:\n- {model: a/b, formats: [[onnx]]}", "formats must be a list of values, not of lists or mappings"),
        ("models:\n- search: {}", "models.yaml:2: search needs at least one of author, tags and search"),
        ("models:\n- search: {author: !!python/name:os.system x}", "search: author is not a plain value"),
        ("models:\n- collection: x", "models.yaml:2: collection is 'x': must be owner/name"),
        ("models:\n- {model: a/b, <<: 5}", "an entry of models: << must name a mapping"),
        ("[" * 5000, "models.yaml"),
    ],
)
def test_one_mistake(tmp_path: Path, text: str, problem: str) -> None:
    assert problem in "\n".join(_problems(tmp_path, text))


def test_a_file_that_is_not_there_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputsError, match="cannot be read"):
        read_fleet(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputsError, match="is not UTF-8"):
        read_fleet(tmp_path / "bytes.yaml")


def test_every_input_is_a_key(tmp_path: Path) -> None:
    keys = {part.name for part in entry_inputs().values()}
    assert keys == {part.name for part in input_fields() if not part.is_secret}
    assert keys <= set(SCHEMA["$defs"]["Entry"]["properties"])


def test_values_are_texts_as_on_the_command_line(tmp_path: Path) -> None:
    entry = """\
models:
  - &base
    model: org/a
    revision: 1.10
    atol: 1e-5
    allow-unused: ["a.*", b]
    neuron-compiler-args: ["--x", "two words"]
    opset: null
  - <<: *base
    model: org/b
"""
    first, second = _members(tmp_path, entry)
    assert first.inputs.revision == second.inputs.revision == "1.10"
    assert first.inputs.allow_unused == ("a.*", "b")
    assert first.inputs.neuron_compiler_args == ("--x", "two words")
    assert first.inputs.opset is None
    assert (first.inputs.output, second.inputs.output) == ("out/org--a@1.10", "out/org--b@1.10")


def test_folders_by_a_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c"):
        Path("models", name).mkdir(parents=True)
        Path("models", name, "config.json").write_text("{}")
    Path("models", "notes").mkdir()
    text = "models:\n- {model: ./models/b, task: masked-lm}\n- model: models/*\n- glob: models/c\n"
    said: list[str] = []
    found = expand(read_fleet(_written(tmp_path, text)), "out", lambda: pytest.fail("no Hub"), said.append)
    assert [member.name for member in found] == ["./models/b", "models/a", "models/c"]
    assert [member.inputs.task for member in found] == ["masked-lm", "auto", "auto"]
    assert any("models/notes holds no checkpoint" in line for line in said)
    assert any("models/b is left to its own" in line for line in said)
    with pytest.raises(InputsError, match=r"models.yaml:2: glob: no model was found"):
        _members(tmp_path, "models:\n- glob: nothing/*\n")


def test_two_models_do_not_write_to_one_place(tmp_path: Path) -> None:
    with pytest.raises(InputsError) as caught:
        _members(tmp_path, "models:\n- {model: org/a, task: masked-lm}\n- {model: org/a, task: default}\n")
    assert "give one of them another output" in str(caught.value)
    twice = "defaults: {push-to-hub: org/c}\nmodels:\n- model: org/a\n- model: org/b\n"
    with pytest.raises(InputsError, match="org/b would replace org/a"):
        _members(tmp_path, twice)
    assert len(_members(tmp_path, twice.replace("- model: org/b", "- {model: org/b, branch: other}"))) == 2


def test_a_folder_is_not_published_to_its_own_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    with pytest.raises(InputsError, match=r"models.yaml:1: create-pr is true, but model 'mine' is a folder"):
        _members(tmp_path, "defaults: {create-pr: true}\nmodels:\n- model: mine\n")


def test_the_schema_and_the_reader_agree(tmp_path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    check = jsonschema.Draft202012Validator(SCHEMA)
    check.validate(yaml.safe_load(EXAMPLE))
    wrong: list[Any] = [
        {"models": []},
        {"models": [{"task": "auto"}]},
        {"models": [{"model": "a/b", "collection": "a/b"}]},
        {"models": [{"model": "a/b", "opset": [1]}]},
        {"models": [{"model": "a/b", "tasks": "auto"}]},
        {"models": [{"model": "a/b", "task": "no-task"}]},
        {"models": [{"model": "a/b", "hub-token": "x"}]},
        {"models": [{"search": {"limit": 3}}]},
        {"models": [{"model": "a/b"}], "default": {}},
        {"models": [{"model": "a/b"}], "defaults": {"model": "c/d"}},
    ]
    for value in wrong:
        assert not check.is_valid(value), value
        assert _problems(tmp_path, yaml.safe_dump(value)), value


def test_a_member_is_the_same_after_a_round_trip(tmp_path: Path) -> None:
    text = (
        EXAMPLE.split("  - collection", maxsplit=1)[0]
        + '  - {model: org/c, allow-unused: ["a:b", "c*"], commit-message: "x: é"}\n'
    )
    members = _members(tmp_path, text)
    again = _members(tmp_path, fleet_file(members))
    assert [one.inputs for one in again] == [one.inputs for one in members]


def _planned(sizes: list[int], folder: Path) -> Any:
    from hfexport.run.fleet.current import Found
    from hfexport.run.fleet.plan import Planned

    names = "\n".join(f"- model: org/m{number}" for number in range(len(sizes)))
    return [
        Planned(member, Found(size))
        for member, size in zip(_members(folder, f"models:\n{names}\n"), sizes, strict=True)
    ]


def test_a_matrix_has_one_job_a_model_longest_first(tmp_path: Path) -> None:
    found = matrix(_planned([5, 9, 0], tmp_path))["include"]
    assert [job["name"] for job in found] == ["org/m1", "org/m0", "org/m2"]
    assert json.loads(found[0]["models"]) == {"models": [{"model": "org/m1", "output": "out/org--m1"}]}


def test_more_models_than_jobs_are_packed(tmp_path: Path) -> None:
    sizes = [10**9 * (1 + number % 7) for number in range(300)]
    found = matrix(_planned(sizes, tmp_path))["include"]
    assert len(found) == 256
    models = [model["model"] for job in found for model in json.loads(job["models"])["models"]]
    assert sorted(models) == sorted(f"org/m{number}" for number in range(300))
    loads = [job["weights_bytes"] for job in found]
    assert loads == sorted(loads, reverse=True)
    assert max(loads) <= 7 * 10**9
    few = matrix(_planned([1] * 10, tmp_path), limit=4)["include"]
    assert sorted(len(json.loads(job["models"])["models"]) for job in few) == [2, 2, 3, 3]


def test_a_matrix_that_no_workflow_takes_is_refused(tmp_path: Path) -> None:
    planned = _planned([1], tmp_path)
    large = [planned[0]] * 20_000
    with pytest.raises(InputsError, match="split the file"):
        matrix(large)


def test_plan_imports_no_torch(tmp_path: Path) -> None:
    _written(tmp_path, "models:\n- model: none/such\n")
    program = (
        "import sys\nfrom hfexport.cli.main import main\ncode = main(['plan', 'models.yaml'])\n"
        "print([name for name in ('torch', 'transformers', 'onnx', 'onnxruntime', 'numpy') if name in sys.modules])\n"
        "sys.exit(code)"
    )
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert "HF_HUB_OFFLINE is set" in done.stderr, "the model's own run will say so"
