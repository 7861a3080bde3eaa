"""The pages that show code are run as they stand, with tiny models in place of the published ones."""

from __future__ import annotations

import doctest
import logging
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

from hfexport.cli import main as cli
from hfexport.onnx.__main__ import main
from tiny import make_checkpoint

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
ARTIFACTS_PAGE = ROOT / "docs" / "artifacts.md"

BLOCK = re.compile(r"```(sh|pycon|python)\n(.*?)```", re.DOTALL)


def run_page(name: str, kinds: tuple[str, ...]) -> dict[str, object]:
    """Run every block of a page in order, all Python in one namespace; gives that namespace."""
    names: dict[str, object] = {"__name__": "page"}
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    ran = 0
    for kind, code in BLOCK.findall((DOCS / name).read_text(encoding="utf-8")):
        if kind not in kinds:
            continue
        ran += 1
        if kind == "sh":
            words = shlex.split(code.replace("\\\n", " "))
            assert words[:3] == ["python", "-m", "hfexport.onnx"]
            assert main(words[3:]) == 0
        elif kind == "python":
            exec(compile(code, name, "exec"), names)
        else:
            test = parser.get_doctest(_as_python_311(code), names, name, None, 0)
            assert test.examples
            said: list[str] = []
            result = runner.run(test, out=said.append, clear_globs=False)
            assert result.failed == 0, "".join(said)
            names = test.globs
    assert ran
    return names


def _as_python_311(code: str) -> str:
    """`OrderedDict` prints as a dict from Python 3.12 on, and as pairs before."""
    if sys.version_info >= (3, 12):
        return code
    return re.sub(r"^OrderedDict\(\{('\w+'): (\{.*?\})\}\)$", r"OrderedDict([(\1, \2)])", code, flags=re.MULTILINE)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory in which the names of published models are folders with tiny ones."""
    monkeypatch.chdir(tmp_path)
    base = Path("distilbert/distilbert-base-uncased")
    make_checkpoint(base, "distilbert", "masked-lm", tokenizer=True)
    head = Path("distilbert/distilbert-base-uncased-finetuned-sst-2-english")
    make_checkpoint(head, "distilbert", "sequence-classification", tokenizer=True)
    return tmp_path


def test_the_transformers_onnx_page_runs(published: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="hfexport.onnx"):
        names = run_page("transformers-onnx.md", ("sh", "pycon"))
    assert (published / "onnx/model.onnx").is_file()
    lines = [record.getMessage().strip() for record in caplog.records]
    assert lines[0] == "Validating ONNX model..."
    assert lines[1] == "-[✓] ONNX model output names match reference model ({'last_hidden_state'})"
    assert lines[2] == '- Validating ONNX Model output "last_hidden_state":'
    assert lines[3] == "-[✓] (2, 8, 32) matches (2, 8, 32)"
    assert lines[-1] == "-[✓] all values close (atol: 1e-05)"
    assert names["onnx_outputs"] == ["last_hidden_state"]


@pytest.mark.parametrize("model_type", ["bert", "longformer", "perceiver"])
def test_the_artifacts_page_calls_any_encoder_of_text(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    task = "sequence-classification"
    make_checkpoint(Path("checkpoint"), model_type, task, tokenizer=True)
    assert cli.main(["--model", "checkpoint", "--task", task, "--formats", "onnx", "--validate", "off"]) == 0
    blocks = [
        code for _, code in BLOCK.findall(ARTIFACTS_PAGE.read_text(encoding="utf-8")) if "InferenceSession" in code
    ]
    capsys.readouterr()
    exec(compile(blocks[0], "artifacts.md", "exec"), {"__name__": "page"})
    assert capsys.readouterr().out.strip() == "(1, 3)"


def test_the_class_of_the_architecture_page_serves(tmp_path: Path, in_this_process: None) -> None:
    page = (DOCS / "adding-an-architecture.md").read_text(encoding="utf-8")
    (tmp_path / "my_configs.py").write_text(
        next(code for _, code in BLOCK.findall(page) if "class MPNetOnnxConfig" in code), encoding="utf-8"
    )
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "mpnet", "auto")
    arguments = ["--model", str(checkpoint), "--output", str(tmp_path / "output"), "--formats", "onnx"]
    assert cli.main([*arguments, "--export-config", f"{tmp_path / 'my_configs.py'}:MPNetOnnxConfig"]) == 0


def test_the_torchscript_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = make_checkpoint(Path("google-bert/bert-base-uncased"), "bert", "masked-lm")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "who", "was", "jim", "henson", "?", "a", "puppet", "##eer"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    names = run_page("torchscript.md", ("python",))
    assert Path("traced_bert.pt").is_file()
    model, dummies = names["model"], names["dummy_input"]
    with torch.no_grad():
        answer = model(*dummies)  # type: ignore[operator, misc]
    torch.testing.assert_close(names["all_encoder_layers"], answer[0], atol=1e-5, rtol=1e-5)
    assert names["all_encoder_layers"].shape == (1, 14, 32)  # type: ignore[attr-defined]
    assert names["pooled_output"].shape == (1, 32)  # type: ignore[attr-defined]
