"""Makes artifacts, mutates them, judges each mutant and asks `hfexport verify` about those that are wrong."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from unittest import mock

import numpy as np
import onnx

import hfexport
from hfexport._internal.forkserver import FORK_SERVERS, fork_servers
from hfexport._internal.workers import child_environment
from hfexport.backends.base import Artifact
from hfexport.cli.main import main
from hfexport.export_config import ExportConfig
from hfexport.validation import Reference, validators
from mutation.judge import OnnxAnswers, Question, ScriptAnswers, questions, wrong_at
from mutation.mutant import KINDS as KINDS_OF_MUTANTS
from mutation.mutant import Mutant, choose
from mutation.onnx_mutants import onnx_mutants
from mutation.onnx_weights import write_mutant
from mutation.script_mutants import read_archive, script_mutants, write_archive
from mutation.subjects import Subject

__all__ = ["Harness", "Result"]

QUESTIONS: Final = 48
"""Random inputs that a mutant is judged by, a graph."""

REFUSED: Final = 6
"""Exit code of `hfexport verify` for an artifact that is wrong."""

Verdict = Literal["refused", "survived", "equivalent", "does not load"]


@dataclass(frozen=True)
class Result:
    """What became of one mutant; `detail` says where it is wrong, or what `verify` said."""

    subject: str
    model_kind: str
    format: str
    artifact: str
    kind: str
    place: str
    verdict: Verdict
    detail: str


@dataclass
class _Export:
    """One export to mutate: its checkpoint and folder, and the graphs of each artifact, by its path."""

    subject: Subject
    format: str
    checkpoint: Path
    folder: Path
    graphs: dict[str, Sequence[ExportConfig]] = field(default_factory=dict)


class Harness:
    """Runs mutants, one at a time.

    Args:
        folder: keeps exports and results, so that a run that was interrupted goes on where it was.
        per_kind: mutants of each kind, at most, of each artifact.
        seed: chooses the mutants and draws the questions.
        kinds: of mutants.
    """

    def __init__(self, folder: Path, per_kind: int, seed: int, kinds: Sequence[str] = KINDS_OF_MUTANTS) -> None:
        self._kinds = kinds
        self._folder = folder.resolve()
        self._per_kind = per_kind
        self._seed = seed
        self._references: dict[str, tuple[Reference, ...]] = {}
        self._results = self._folder / f"results-{_stamp(made=False)[:16]}.jsonl"
        self._asked: list[Sequence[ExportConfig]] = []
        self._start = validators.start_references

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Fork children from warm servers, and ask the reference each question once."""

        def note(comparison: Any, artifact: Artifact, config: ExportConfig, companions: Any) -> Any:
            self._asked.append(config.branches)
            return validate(comparison, artifact, config, companions)

        validate = validators._GraphComparison.validate
        running = os.environ.get(FORK_SERVERS)
        with contextlib.nullcontext(running) if running else fork_servers(child_environment(os.environ)) as servers:
            given = {FORK_SERVERS: servers, "OMP_NUM_THREADS": "1"}
            patched = mock.patch.multiple(validators, start_references=self._start_once)
            noted = mock.patch.object(validators._GraphComparison, "validate", note)
            with mock.patch.dict(os.environ, given), patched, noted:
                yield

    def _start_once(self, checkpoint: Path, asked: Any, dtype: str, **others: Any) -> tuple[Reference, ...]:
        """`start_references`, whose answers are those of the first time if the questions are.

        The reference answers from the checkpoint and the probes alone, so a mutant changes nothing of it.
        """
        probes = [[dict(config.recipe), [repr(probe) for probe in probes]] for config, probes in asked]
        key = hashlib.sha256(json.dumps([str(checkpoint), dtype, probes], default=str).encode()).hexdigest()
        if key not in self._references:
            folder = self._folder / "references" / key
            shutil.rmtree(folder, ignore_errors=True)
            found = self._start(checkpoint, asked, dtype, **{**others, "folder": folder})
            for reference in found:
                reference.worker.result()
            self._references[key] = found
        return self._references[key]

    def mutate(self, subject: Subject, format_name: str) -> Iterator[Result]:
        """Every chosen mutant of one export, as it is judged."""
        export = self._export(subject, format_name)
        for path, graphs in export.graphs.items():
            yield from self._mutate_artifact(export, path, graphs)

    def _export(self, subject: Subject, format_name: str) -> _Export:
        """Make the export, or take the one that was made by the same code; see that `verify` says yes to it."""
        work = self._folder / f"{subject.name}-{format_name}"
        stamp = _stamp(made=True)
        if not (work / "stamp").is_file() or (work / "stamp").read_text() != stamp:
            shutil.rmtree(work, ignore_errors=True)
            checkpoint = subject.make(work / "checkpoint")
            words = ["--model", str(checkpoint), "--formats", format_name, "--task", subject.task, *subject.options]
            code, said = _quietly([*words, "--output", str(work / "export")])
            if code != 0:
                raise RuntimeError(f"{subject.name} cannot be exported to {format_name}: exit {code}: {said[-2000:]}")
            (work / "stamp").write_text(stamp)
        export = _Export(subject, format_name, work / "checkpoint", work / "export")
        self._asked.clear()
        code, said = _quietly(["verify", str(export.folder), "--model", str(export.checkpoint)])
        if code != 0:
            raise RuntimeError(f"{subject.name}: verify refuses the {format_name} that was made: {said[-2000:]}")
        manifest = json.loads((export.folder / "hfexport.json").read_text())
        paths = [artifact["path"] for artifact in manifest["artifacts"]]
        export.graphs = dict(zip(paths, self._asked, strict=True))
        return export

    def _mutate_artifact(self, export: _Export, path: str, graphs: Sequence[ExportConfig]) -> Iterator[Result]:
        known = self._known()
        judge = _Judge(export.folder / path, export.format, graphs, self._seed)
        base = _load(export.folder / path, export.format)
        widest = max(graphs, key=lambda config: len(config.inputs))
        mutants = _mutants(base, export.folder / path, export.format, widest)
        for mutant in choose(mutants, self._per_kind, f"{self._seed} {export.subject.name} {path}", self._kinds):
            where = (export.subject.name, export.format, path, mutant.kind, mutant.place)
            if (found := known.get(where)) is None:
                verdict, detail = self._judge(export, path, mutant, judge)
                names = (export.subject.name, export.subject.kind, export.format, path, mutant.kind, mutant.place)
                found = Result(*names, verdict, detail)
                self._keep(found)
            yield found

    def _judge(self, export: _Export, path: str, mutant: Mutant, judge: _Judge) -> tuple[Verdict, str]:
        copy = self._folder / "mutant"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(export.folder, copy)
        changed = _load(export.folder / path, export.format)
        mutant.edit(changed)
        _write(changed, copy / path)
        wrong = judge.wrong(copy / path)
        if wrong is None:
            return "does not load", ""
        if not wrong and mutant.stored:
            wrong = "stored weights differ"
        if not wrong:
            return "equivalent", ""
        _rehash(copy)
        code, said = _quietly(["verify", str(copy), "--model", str(export.checkpoint)])
        if code == REFUSED:
            return "refused", wrong
        return "survived", f"{wrong}; verify ended with {code}{': ' + said[-300:] if code else ''}"

    def _known(self) -> dict[tuple[str, ...], Result]:
        """Results of earlier runs of the same code."""
        if not self._results.is_file():
            return {}
        results = [Result(**json.loads(line)) for line in self._results.read_text(encoding="utf-8").splitlines()]
        return {(one.subject, one.format, one.artifact, one.kind, one.place): one for one in results}

    def _keep(self, result: Result) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._results.open("a", encoding="utf-8") as results:
            results.write(json.dumps(vars(result)) + "\n")


class _Judge:
    """Answers of an artifact to questions of the judge's own; mutants are held to them."""

    def __init__(self, path: Path, format_name: str, graphs: Sequence[ExportConfig], seed: int) -> None:
        self._format = format_name
        self._graphs = graphs
        self._asked: list[list[tuple[Question, Mapping[str, np.ndarray[Any, Any]]]]] = []
        for config in graphs:
            answers = self._open(path, config)
            asked = []
            for question in questions(config, QUESTIONS, seed):
                with contextlib.suppress(Exception):  # what the artifact itself refuses says nothing of its mutants
                    asked.append((question, answers.ask(question.inputs)))
            if len(asked) < QUESTIONS // 2:
                raise RuntimeError(f"{path.name}: answers only {len(asked)} of {QUESTIONS} questions")
            self._asked.append(asked)

    def _open(self, path: Path, config: ExportConfig) -> OnnxAnswers | ScriptAnswers:
        if self._format == "onnx":
            return OnnxAnswers(path, config, branch=len(self._graphs) > 1)
        return ScriptAnswers(path, config)

    def wrong(self, path: Path) -> str | None:
        """Where the mutant is wrong, or nothing; `None` if it does not load."""
        for config, asked in zip(self._graphs, self._asked, strict=True):
            try:
                answers = self._open(path, config)
            except Exception:  # noqa: BLE001  neither run time has a base class for its errors
                return None
            for question, wanted in asked:
                try:
                    found = answers.ask(question.inputs)
                except Exception:  # noqa: BLE001
                    return "it fails where the artifact answers"
                if wrong := wrong_at(question, found, wanted, config.tolerance("fp32")):
                    return wrong
        return ""


def _mutants(base: Any, path: Path, format_name: str, config: ExportConfig) -> Iterator[Mutant]:
    if format_name == "onnx":
        return onnx_mutants(base, config, path.parent)
    import torch

    module = torch.jit.load(str(path), map_location="cpu")
    tensors = [tensor.detach().numpy() for tensor in (*module.parameters(), *module.buffers())]
    return script_mutants(base, config, {array.tobytes(): array for array in tensors})


def _load(path: Path, format_name: str) -> Any:
    return onnx.load(path, load_external_data=False) if format_name == "onnx" else read_archive(path)


def _write(changed: Any, path: Path) -> None:
    if isinstance(changed, onnx.ModelProto):
        write_mutant(changed, path)
    else:
        write_archive(changed, path)


def _rehash(folder: Path) -> None:
    """Make the manifest fit the files again, as a forger would."""
    path = folder / "hfexport.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    for entry in [file for artifact in manifest["artifacts"] for file in artifact["files"]]:
        content = (folder / entry["path"]).read_bytes()
        entry |= {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    path.write_text(json.dumps(manifest), encoding="utf-8")


def _quietly(words: Sequence[str]) -> tuple[int, str]:
    """Run the command line in this process: its exit code, and what it printed."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(words)
    return code, said.getvalue()


def _stamp(*, made: bool) -> str:
    """Hash of the code: of what makes artifacts, or of all that decides about a mutant."""
    root = Path(hfexport.__file__).parent
    files = sorted(root.rglob("*.py"))
    if made:
        files = [file for file in files if file.relative_to(root).parts[0] in ("backends", "export_config", "modeling")]
        files = [file for file in files if "probes" not in file.parts]
    else:
        files += sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
