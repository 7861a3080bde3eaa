"""A stand-in for AWS's torch-neuronx, which tests cannot install. It is not the SDK and compiles nothing.

It keeps what hfexport meets of the real one: `trace`'s signature and errors, a compiler that is a program of its own, and
a graph that is a single operator. `neuron_stand_in` says how it is made to misbehave.

Source: the API reference of torch-neuronx in aws-neuron/aws-neuron-sdk.
"""

import logging
import os
import shlex
import subprocess
import sys
from pathlib import Path

import neuron_stand_in as stand_in
import torch

__version__ = "2.9.0.2.15.32035"

logger = logging.getLogger("Neuron")


def trace(
    func,
    example_inputs,
    *_,
    input_output_aliases={},  # noqa: B006 (as documented)
    compiler_workdir=None,
    compiler_args=None,
    partitioner_config=None,
    inline_weights_to_neff=True,
    cpu_backend=False,
):
    """Signature as documented; of the arguments `input_output_aliases` and `partitioner_config` are not stood in for."""
    assert not _ and not input_output_aliases and partitioner_config is None
    arguments = shlex.split(compiler_args) if isinstance(compiler_args, str) else list(compiler_args or [])
    flags = stand_in.flags_of(arguments)
    stand_in.misbehave(flags)
    stand_in.check_size(func, flags, not inline_weights_to_neff)
    if cpu_backend and "--target" not in [argument.partition("=")[0] for argument in arguments]:
        raise ValueError("cpu_backend needs --target among compiler_args")
    script = torch.jit.trace(func, example_inputs, check_trace=False)
    _compile(Path(compiler_workdir or "."), arguments)
    inputs = [(tensor.shape, tensor.dtype) for tensor in example_inputs]
    return _module(stand_in.pack(flags, script, inputs), example_inputs)


def _compile(folder, arguments):
    neff = folder / "graph.neff"
    compiler = Path(sys.executable).parent / "neuronx-cc"
    command = [str(compiler), "compile", str(folder / "model"), "--framework", "XLA", "--target", "trn1"]
    status = subprocess.run([*command, "--output", str(neff), *arguments], check=False).returncode
    if status == -9:
        logger.warning(
            "The neuronx-cc (neuron compiler) process was killed (SIG_KILL).  This typically happens when there is "
            "insufficient memory to compile and the linux Out Of Memory (OOM) killer terminates the compiler. "
            "Consider trying compilation on an instance with more memory"
        )
    if status != 0:
        raise RuntimeError(f"neuronx-cc failed with {status}")
    sys.stdout.write("Compiler status PASS" + os.linesep)


class _NeuronModule(torch.nn.Module):
    def __init__(self, program):
        super().__init__()
        self.register_buffer("program", program)

    def forward(self, *tensors):
        return tuple(torch.ops.neuron.forward_v2(list(tensors), self.program))


def _module(program, example_inputs):
    return torch.jit.trace(_NeuronModule(program), example_inputs, strict=False, check_trace=False)


def dynamic_batch(neuron_script):
    """A module that takes any batch, as documented."""
    header, content = stand_in.unpack(neuron_script.program)
    example_inputs = tuple(torch.zeros(shape, dtype=getattr(torch, dtype)) for shape, dtype in header["inputs"])
    return _module(stand_in.packed({**header, "dynamic": True}, content), example_inputs)
