"""Every command in the documentation is run with tiny models, or says why not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from documents import ROOT, Block, blocks, commands, pages
from hfexport.cli import main as cli
from hfexport.cli.commands import split_command
from hfexport.errors import InputsError
from hfexport.run.inputs import input_fields, parse_inputs
from tiny import make_checkpoint
from tiny.sentence import write_modules

RUNNABLE = ("sh", "bash", "console", "python", "pycon", "js")

RUN_ELSEWHERE = {
    "torchscript.md": "test_docs_run.py runs the page",
    "transformers-onnx.md": "test_docs_run.py runs the page",
    "artifacts.md": "test_docs_run.py runs its Python",
}
"""Pages whose blocks other tests run as they stand."""

COMMAND = re.compile(r"^(hfexport|docker|python|pip|make|gh|git|curl|npm|hf|optimum-cli)[\w.]* ", re.MULTILINE)


def unexplained(block: Block) -> str:
    """Why a block breaks the rule; empty if it keeps it."""
    if not block.kind and COMMAND.search(block.code):
        return "holds a command and names no language"
    if block.kind not in RUNNABLE or block.reason or block.page in RUN_ELSEWHERE:
        return ""
    if block.kind in ("python", "pycon") and block.page in RUN_PAGES:
        return ""
    if block.kind == "sh" and block.page in RUN_PAGES and all(words[0] == "hfexport" for words in commands(block)):
        return ""
    return "is run by no test and has no line `<!-- not run: reason -->` before it"


RUN_PAGES = ("adding-an-architecture.md", "artifacts.md", "first-export.md", "large-models.md")
RUN_PAGES += ("optimum.md", "sentence-transformers.md", "transformers-js.md", "genai.md", "variants.md")
"""Pages whose commands, and for sentence-transformers.md also Python, are run below."""


def test_every_block_is_run_or_says_why_not() -> None:
    wrong = [
        f"{block.page}:{block.line}: {problem}"
        for page in pages()
        for block in blocks(page)
        if (problem := unexplained(block))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("```\nhfexport model\n```\n", "names no language"),
        ("```sh\nhfexport model\n```\n", "is run by no test"),
        ("```python\nprint()\n```\n", "is run by no test"),
        ("<!-- not run: -->\n```sh\nmake test\n```\n", "is run by no test"),
        ("<!-- not run: takes hours -->\n```sh\nmake test\n```\n", ""),
        ("```\nhfexport-out/\n```\n", ""),
    ],
)
def test_a_block_without_a_test_is_found(tmp_path: Path, text: str, problem: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    (block,) = blocks(page)
    assert problem in unexplained(block)
    assert bool(problem) == bool(unexplained(block))


def _hfexport_commands() -> list[Any]:
    return [
        pytest.param(words[1:], id=f"{block.page}:{block.line}")
        for page in pages()
        for block in blocks(page)
        if block.kind == "sh"
        for words in commands(block)
        if words[0] == "hfexport"
    ]


@pytest.mark.parametrize("words", _hfexport_commands())
def test_every_command_line_is_accepted(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_configs.py").write_text("class MPNetOnnxConfig: ...\n", encoding="utf-8")
    command, arguments = split_command(words)
    parse_inputs(arguments, {}, command.syntax)


def test_a_wrong_option_in_a_command_line_is_found() -> None:
    command, arguments = split_command(["model", "--formatz", "onnx"])
    with pytest.raises(InputsError, match="formatz"):
        parse_inputs(arguments, {}, command.syntax)


def _steps(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        here = [value] if str(value.get("uses", "")).startswith("org/hfexport-action@") else []
        return here + [step for item in value.values() for step in _steps(item)]
    return [step for item in value for step in _steps(item)] if isinstance(value, list) else []


def _as_the_runner_gives_it(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return re.sub(r"\$\{\{.*?\}\}", "value", text)


def test_every_workflow_gives_inputs_that_the_action_takes() -> None:
    names = {name for part in input_fields() for name in (part.name, *part.aliases)}
    steps = [
        step
        for page in pages()
        for block in blocks(page)
        if block.kind == "yaml"
        for step in _steps(yaml.safe_load(block.code))
    ]
    assert len(steps) >= 4
    for step in steps:
        assert set(step["with"]) <= names
        values = {f"INPUT_{name.upper()}": _as_the_runner_gives_it(value) for name, value in step["with"].items()}
        command, arguments = split_command([])
        parse_inputs(arguments, values, command.syntax)


def _run_page(name: str, folder: Path) -> None:
    task, model_type = "sequence-classification", "mpnet" if name == "adding-an-architecture.md" else "bert"
    make_checkpoint(
        folder / "path/to/checkpoint", model_type, "auto" if model_type == "mpnet" else task, tokenizer=True
    )
    if name == "sentence-transformers.md":
        make_checkpoint(folder / "path/to/sentences", "bert", "default", tokenizer=True)
        write_modules(folder / "path/to/sentences", ["mean"])
    if name in ("artifacts.md", "genai.md"):
        make_checkpoint(folder / "path/to/decoder", "llama", "causal-lm-with-past", tokenizer=True)
    if name == "artifacts.md":
        assert cli.main(["path/to/checkpoint", "--formats", "onnx"]) == 0
    names: dict[str, object] = {"__name__": "page"}
    ran = 0
    for block in blocks(ROOT / "docs" / name):
        if block.reason or block.kind not in ("sh", "python"):
            continue
        if block.kind == "sh":
            for words in commands(block):
                assert cli.main(words[1:]) == 0, f"{name}:{block.line}"
                ran += 1
        elif name == "adding-an-architecture.md" and "class " in block.code:
            Path("my_configs.py").write_text(block.code, encoding="utf-8")
        elif name != "artifacts.md":
            exec(compile(block.code, name, "exec"), names)
    assert ran


@pytest.mark.parametrize(
    "name",
    [RUN_PAGES[2], *(pytest.param(name, marks=pytest.mark.thorough) for name in RUN_PAGES if name != RUN_PAGES[2])],
)
def test_the_commands_of_a_page_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _run_page(name, tmp_path)
    capsys.readouterr()
