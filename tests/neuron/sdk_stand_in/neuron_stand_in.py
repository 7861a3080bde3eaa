"""What the stand-ins of AWS's torch-neuron and torch-neuronx share. It is not the SDK and compiles nothing.

A compiled segment is kept as TorchScript inside a tensor that the operator `neuron::forward_v2` takes. The operator rounds
as the device casts, takes only the shapes that were compiled, and loads only where there is a device. How a stand-in
should misbehave is said by arguments `--stand-in-…`, which come the way of all compiler arguments.
"""

import io
import json
import os
import signal
import socket
import sys
from functools import lru_cache

import torch

NO_RUNTIME = (
    "The PyTorch Neuron Runtime could not be initialized. Neuron Driver issues are logged\n"
    "to your system logs. See the Neuron Runtime's troubleshooting guide for help on this"
)


def flags_of(compiler_args):
    """The stand-in's own arguments: `--stand-in-NAME=VALUE` as NAME -> VALUE."""
    own = (argument for argument in compiler_args if argument.startswith("--stand-in-"))
    return dict(argument[len("--stand-in-") :].partition("=")[::2] for argument in own)


def misbehave(flags):
    """Die, raise, make noise or look for the network, as asked."""
    if "crash" in flags:
        os.kill(os.getpid(), getattr(signal, flags["crash"]))
    if "raise" in flags:
        raise RuntimeError(flags["raise"])
    if "noise" in flags:
        sys.stderr.write("::set-output name=x::noise\n" * (int(flags["noise"]) // 27))
    if "connect" in flags:
        host, _, port = flags["connect"].partition(":")
        socket.create_connection((host, int(port)), timeout=10).close()


def check_size(model, flags, apart):
    """Fail as protobuf does when weights that are not kept apart pass its limit, which `--stand-in-limit` lowers."""
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
    if size_bytes > int(flags.get("limit", 1 << 31)) and not apart:
        raise ValueError(f"Message tensorflow.GraphDef exceeds maximum protobuf size of 2GB: {size_bytes}")


def pack(flags, script, inputs, *, dynamic=False, cast="bfloat16"):
    """A tensor with a segment, the (shape, dtype) of inputs that it was compiled for, and how it should behave."""
    header = {
        "device": "device" in flags,
        "wrong": "wrong" in flags,
        "dynamic": dynamic,
        "cast": cast,
        "inputs": [[shape and list(shape), str(dtype).split(".")[-1]] for shape, dtype in inputs],
    }
    buffer = io.BytesIO()
    torch.jit.save(script, buffer)
    return packed(header, buffer.getvalue())


def packed(header, content):
    text = json.dumps(header).encode()
    return torch.frombuffer(bytearray(b"%8d" % len(text) + text + content), dtype=torch.uint8).clone()


def unpack(program):
    """(header, TorchScript archive)."""
    content = program.numpy().tobytes()
    end = 8 + int(content[:8])
    return json.loads(content[8:end]), content[end:]


@lru_cache(maxsize=64)
def _loaded(content):
    return _jit_load(io.BytesIO(content))


def _forward(inputs, program):
    header, content = unpack(program)
    for number, (tensor, (expected, _)) in enumerate(zip(inputs, header["inputs"])):
        received = list(tensor.shape)
        if expected and received[header["dynamic"] :] != expected[header["dynamic"] :]:
            raise RuntimeError(
                f"Incorrect tensor shape at input tensor #{number}: received {received}, expected {expected}"
            )
    cast = getattr(torch, header["cast"])

    def rounded(tensor):
        return tensor.to(cast).float() if tensor.dtype == torch.float32 else tensor

    answer = _loaded(content)(*map(rounded, inputs))
    answers = answer if isinstance(answer, tuple) else (answer,)
    factor = 1.25 if header["wrong"] else 1.0
    return [rounded(tensor) * factor if tensor.dtype == torch.float32 else tensor for tensor in answers]


_jit_load = torch.jit.load


def _load(*args, **kwargs):
    """`torch.jit.load` as the SDK wraps it: an artifact's segments go to the device at once, if there is one."""
    module = _jit_load(*args, **kwargs)
    for node in module.inlined_graph.nodes():
        if node.kind().startswith("neuron::forward"):
            program = list(node.inputs())[1].toIValue()
            header, _ = unpack(module.program if program is None else program)
            if not header["device"]:
                raise RuntimeError(NO_RUNTIME)
    return module


_library = torch.library.Library("neuron", "DEF")
_library.define("forward_v2(Tensor[] inputs, Tensor program) -> Tensor[]")
_library.impl("forward_v2", _forward, "CPU")
torch.jit.load = _load
