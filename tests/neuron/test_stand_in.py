"""The stand-ins have the signatures that AWS documents: what hfexport gives them, the real ones take."""

from __future__ import annotations

import json
import subprocess

import pytest

from neuron.conftest import made_python

INF1 = {
    "compiler_args": None,
    "compiler_timeout": None,
    "compiler_workdir": None,
    "subgraph_builder_function": None,
    "minimum_segment_size": 2,
    "single_fusion_ratio_threshold": 0.6,
    "fallback": True,
    "dynamic_batch_size": False,
    "optimizations": None,
    "separate_weights": False,
}
"""Keyword arguments of `torch_neuron.trace` and their defaults: PyTorch-Neuron trace Python API, torch-neuron 1.13.1."""

INF2 = {
    "input_output_aliases": {},
    "compiler_workdir": None,
    "compiler_args": None,
    "partitioner_config": None,
    "inline_weights_to_neff": True,
    "cpu_backend": False,
}
"""The same of `torch_neuronx.trace`: PyTorch NeuronX Tracing API for Inference."""

PROGRAM = """
import importlib, inspect, json, sys, torch
sdk = importlib.import_module(sys.argv[1])
parameters = inspect.signature(sdk.trace).parameters.values()
keywords = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
others = [p.name for p in parameters if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)]
refused = []
for wrong in (dict(unheard_of=1), dict(cpu_backend=True)):
    try: sdk.trace(torch.nn.Linear(1, 1), (torch.ones(1, 1),), **wrong)
    except (TypeError, ValueError) as error: refused.append(type(error).__name__)
print(json.dumps([others, keywords, refused]))
"""


@pytest.mark.parametrize(
    ("environment", "module", "positional", "documented", "refused"),
    [
        (".venv-neuron", "torch_neuron", ["model", "example_inputs"], INF1, ["TypeError", "TypeError"]),
        (".venv-neuron", "torch.neuron", ["model", "example_inputs"], INF1, ["TypeError", "TypeError"]),
        (".venv-neuronx", "torch_neuronx", ["func", "example_inputs", "_"], INF2, ["TypeError", "ValueError"]),
    ],
)
def test_the_signature_is_the_documented_one(
    environment: str, module: str, positional: list[str], documented: dict[str, object], refused: list[str]
) -> None:
    command = [made_python(environment), "-W", "ignore", "-c", PROGRAM, module]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [positional, documented, refused]
