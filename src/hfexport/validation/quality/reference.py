"""Run the unpatched model on the inputs on which variants are measured. Runs as a child process."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hfexport._internal.messages import plain, read
from hfexport.errors import MODEL_FAILURES, UnsupportedError
from hfexport.export_config import ExportConfig
from hfexport.export_config.builtin import restore_config
from hfexport.validation.arrays import write_arrays
from hfexport.validation.quality.cases import Case, Tokens, cases_for, longest, media_cases, probe_cases, reads_texts
from hfexport.validation.quality.data import Data, read_data
from hfexport.validation.quality.media import prepared
from hfexport.validation.quality.messages import ModelAnswer, ModelCase, ModelJob

__all__ = ["run"]

Chosen = Callable[[ExportConfig], list[Case]]


def run(values: Mapping[str, Any]) -> dict[str, Any]:
    """Choose inputs and run the model in float32 on them.

    Args:
        values: those of a `ModelJob`.

    Returns:
        Values of a `ModelAnswer`.

    Raises:
        UnsupportedError: the model fails, or it cannot read the user's data.
    """
    import torch

    from hfexport.modeling.load import load_model
    from hfexport.modeling.untrusted_config import read_model_config

    job = read(values, ModelJob)
    torch.set_num_threads(job.threads)
    checkpoint = Path(job.checkpoint)
    recipe = job.graphs[0].recipe
    model_config = read_model_config(checkpoint, trust_remote_code=recipe["trust_remote_code"])
    configs = [restore_config(graph.recipe, model_config) for graph in job.graphs]
    data = read_data(job.data)
    choose = _texts(data, job, configs) if data.kind == "texts" else _media(data, job, configs)
    model = load_model(checkpoint, configs[0], "fp32")
    described: dict[str, tuple[ModelCase, ...]] = {}
    samples = 0
    for config, graph in zip(configs, job.graphs, strict=True):
        cases = choose(config) or probe_cases(config)
        if any(case.real for case in cases):
            samples = len(data.texts or data.files)
        for number, case in enumerate(cases):
            try:
                _answer(model, config, case, Path(graph.folder), number)
            except MODEL_FAILURES as error:
                raise UnsupportedError(
                    f"the model itself fails at {case.probe.name} of the data for variants: {error}",
                    remedy="Give eval-data that the model can read.",
                ) from error
        described[config.graph] = tuple(ModelCase(probe=case.probe, real=case.real) for case in cases)
    description = data.description if samples else "probes"
    return plain(ModelAnswer(data=description, samples=samples, graphs=described))


def _media(data: Data, job: ModelJob, configs: Sequence[ExportConfig]) -> Chosen:
    """Return a function that gives the cases of a graph for images or sounds."""
    trust = configs[0].recipe["trust_remote_code"]
    samples = prepared(data, Path(job.tokenizer), trust_remote_code=trust)

    def choose(config: ExportConfig) -> list[Case]:
        try:
            return media_cases(config, samples)
        except ValueError as error:
            raise UnsupportedError(
                f"eval-data {data.description}: the checkpoint's processor gives arrays that do not fit the model: {error}",
                remedy="Check preprocessor_config.json, or leave eval-data out.",
            ) from error

    if not any(choose(config) for config in configs):
        raise UnsupportedError(
            f"eval-data {data.description}: holds {data.kind}, but the task {configs[0].task.name} of this model does not"
            f" read {data.kind} alone",
            remedy="Leave eval-data out; variants are then measured on texts or probes.",
        )
    return choose


def _texts(data: Data, job: ModelJob, configs: Sequence[ExportConfig]) -> Chosen:
    """Return a function that gives the cases of a graph for texts: none if it or the checkpoint's tokenizer reads none."""
    if not any(reads_texts(config) for config in configs):
        if job.data:
            raise UnsupportedError(
                f"eval-data {data.description}: holds texts, but the task {configs[0].task.name} of this model does not"
                " read texts alone",
                remedy="Leave eval-data out; variants are then measured on probes.",
            )
        return lambda _: []
    tokenizer = _tokenizer(Path(job.tokenizer), trust_remote_code=configs[0].recipe["trust_remote_code"])
    if tokenizer is None:
        if job.data:
            raise UnsupportedError(
                f"eval-data {data.description}: the checkpoint has no tokenizer that transformers can load",
                remedy="Add the tokenizer's files to the checkpoint, or leave eval-data out.",
            )
        return lambda _: []
    reading = [config for config in configs if reads_texts(config)]
    most = {pairs: min(longest(config, pairs=pairs) for config in reading) for pairs in (False, True)}
    tokens = [_tokens(tokenizer, parts, most[len(parts) > 1]) for parts in data.texts]
    pad = getattr(tokenizer, "pad_token_id", None)
    vocabulary = min(config.vocabulary_size for config in reading)
    fill = pad if pad is not None and 0 <= pad < vocabulary else 0
    return lambda config: cases_for(config, tokens, fill) if reads_texts(config) else []


def _tokens(tokenizer: Any, parts: Sequence[str], most: int) -> Tokens:
    """Tokenise a text, cut on the right, or a pair, whose longer text is cut."""
    if len(parts) == 1:
        found = tokenizer(parts[0], truncation=False)
    else:
        found = tokenizer(*parts, truncation="longest_first", max_length=most)
    ids = [int(token) for token in found["input_ids"]][:most]
    types = [int(kind) for kind in found.get("token_type_ids") or [0] * len(ids)][:most]
    return Tokens(tuple(ids), tuple(types))


def _tokenizer(folder: Path, *, trust_remote_code: bool) -> Any:
    """Load the checkpoint's tokenizer; return `None` if it has none."""
    from transformers import AutoTokenizer

    from hfexport.modeling.load import quiet

    if not any(folder.glob("*token*")) and not any(folder.glob("*.model")) and not any(folder.glob("vocab*")):
        return None
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
        except (*MODEL_FAILURES, OSError):
            return None


def _answer(model: Any, config: ExportConfig, case: Case, folder: Path, number: int) -> None:
    """Run one case; write its inputs and outputs."""
    import torch

    from hfexport.validation.reference.worker import answer_inputs

    write_arrays(folder / "inputs" / str(number), case.inputs)
    asked = copy.deepcopy(model) if config.changes_when_called else model
    # Random draws in the model's own generation are off; a case without padding needs no order of rows.
    with torch.inference_mode():
        outputs = answer_inputs(asked, config, replace(case.probe, reorders=False), case.inputs)
    write_arrays(folder / "outputs" / str(number), {name: np.asarray(array) for name, array in outputs.items()})
