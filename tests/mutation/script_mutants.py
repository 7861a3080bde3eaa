"""Mutants of TorchScript archives: edits of the code text, its constants and the stored tensors."""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from hfexport.export_config import axis_size
from mutation.mutant import Mutant
from mutation.weights import changes

__all__ = ["read_archive", "script_mutants", "write_archive"]

SWAPS: Final[Mapping[str, str]] = {
    **{"add": "sub", "sub": "add", "mul": "div", "div": "mul", "tanh": "sigmoid", "sigmoid": "tanh", "silu": "relu"},
    **{"relu": "abs", "cos": "sin", "sin": "cos", "rsqrt": "sqrt", "softmax": "log_softmax", "neg": "abs"},
    **{"__and__": "__or__", "__or__": "__and__", "max_pool2d": "avg_pool2d", "bitwise_not": "abs", "cumsum": "cumprod"},
}
BYPASSED: Final = frozenset(
    (
        *(
            "tanh",
            "sigmoid",
            "silu",
            "relu",
            "gelu",
            "cos",
            "sin",
            "rsqrt",
            "softmax",
            "neg",
            "layer_norm",
            "add",
            "sub",
        ),
        *(
            "mul",
            "div",
            "__and__",
            "batch_norm",
            "group_norm",
            "max_pool2d",
            "cumsum",
            "rsub",
            "contiguous",
            "masked_fill",
        ),
    )
)
STRICT: Final[Mapping[str, str]] = {"le": "lt", "lt": "le", "ge": "gt", "gt": "ge"}
EXCHANGED: Final = frozenset(("sub", "div", "le", "lt", "ge", "gt", "matmul", "where"))
TAKES_AXES: Final = frozenset(
    ("size", "softmax", "unsqueeze", "squeeze", "transpose", "sum", "mean", "cumsum", "argmax", "flatten")
)
EPSILON_AT_MOST: Final = 1e-4

_CALL = re.compile(r"torch\.(\w+)\(")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.])")
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.\w+)?")

Records = dict[str, bytes]
Edit = Callable[[Records], None]


def read_archive(path: Path) -> Records:
    """Records of an archive, in order."""
    with zipfile.ZipFile(path) as archive:
        return {record.filename: archive.read(record) for record in archive.infolist()}


def write_archive(records: Records, path: Path) -> None:
    """Write an archive as torch reads it: uncompressed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in records.items():
            archive.writestr(zipfile.ZipInfo(name), data)


def script_mutants(records: Records, config: Any, weights: Mapping[bytes, Any]) -> Iterator[Mutant]:
    """All mutants of an archive.

    Args:
        records: of the archive.
        config: its export config, which says what inputs mean.
        weights: tensors of the loaded module, by their bytes.
    """
    sizes = sorted({axis_size(axis, config.trace_sizes) for spec in config.inputs for axis in spec.axes})
    code = {name: data.decode().splitlines() for name, data in records.items() if "/code/" in name}
    for name, lines in code.items():
        for number, line in enumerate(lines):
            if (call := _CALL.search(line)) is not None:
                yield from _line_mutants(_Call(name, number, line, call[1], call.start(), call.end()), sizes)
    yield from _interface_mutants(code, config)
    yield from _constant_mutants(records)
    yield from _weight_mutants(records, weights)


def _line(name: str, number: int, text: str) -> Edit:
    def edit(records: Records) -> None:
        lines = records[name].decode().split("\n")
        lines[number] = text
        records[name] = "\n".join(lines).encode()

    return edit


@dataclass(frozen=True)
class _Call:
    """The first call of a function of torch on a line of code.

    Attributes:
        name: of the file.
        number: of the line, from 0.
        line: its text.
        op: the function's name.
        start: where `torch.` begins.
        opens: behind the opening parenthesis.
    """

    name: str
    number: int
    line: str
    op: str
    start: int
    opens: int

    @property
    def parsed(self) -> tuple[list[str], int]:
        return _arguments(self.line, self.opens)

    def mutant(self, kind: str, detail: str, text: str) -> Mutant:
        """A mutant that has `text` for the line."""
        place = f"{self.name.rpartition('/')[2]}:{self.number + 1} {self.line.strip()[:70]}"
        return Mutant(kind, f"{place} {detail}", _line(self.name, self.number, text))

    def instead(self, value: str) -> str:
        """The line with another value in place of the call."""
        return self.line[: self.start] + value + self.line[self.parsed[1] + 1 :]

    def called(self, function: str, given: Sequence[str]) -> str:
        return self.instead(f"torch.{function}({', '.join(given)})")


def _line_mutants(call: _Call, sizes: Sequence[int]) -> Iterator[Mutant]:
    op, (arguments, _) = call.op, call.parsed
    if op in SWAPS:
        yield call.mutant("operator swapped", f"-> {SWAPS[op]}", call.called(SWAPS[op], arguments))
    if op == "gelu":
        approximate = '"none"' if any("tanh" in given for given in arguments) else '"tanh"'
        other = call.called("gelu", [arguments[0], f"approximate={approximate}"])
        yield call.mutant("operator swapped", "-> the other gelu", other)
    if op in BYPASSED and arguments:
        yield call.mutant("operator bypassed", "bypassed", call.instead(arguments[0]))
        if op in ("add", "mul", "__and__") and len(arguments) > 1 and _NAME.fullmatch(arguments[1]):
            yield call.mutant("operator bypassed", "bypassed by the second", call.instead(arguments[1]))
    if op == "where" and len(arguments) == 3:
        for choice in (1, 2):
            if _NAME.fullmatch(arguments[choice]):
                text = call.instead(f"torch.add({arguments[choice]}, 0)")
                yield call.mutant("operator bypassed", f"always {choice}", text)
    if op == "size":
        for size in sizes:
            yield call.mutant("traced size baked in", f"-> {size}", call.instead(str(size)))
    yield from _exchanges(call, arguments)
    yield from _comparisons(call, arguments)
    yield from _numbers(call)


def _exchanges(call: _Call, arguments: list[str]) -> Iterator[Mutant]:
    if call.op in EXCHANGED:
        first, second = (1, 2) if call.op == "where" else (0, 1)
        given = list(arguments)
        if len(given) > second and given[first] != given[second]:
            given[first], given[second] = given[second], given[first]
            yield call.mutant("operands exchanged", "exchanged", call.called(call.op, given))
    if call.op == "cat" and (parts := re.fullmatch(r"\[(\w+), (\w+)\]", arguments[0])):
        text = call.called("cat", [f"[{parts[2]}, {parts[1]}]", *arguments[1:]])
        yield call.mutant("operands exchanged", "exchanged", text)


def _comparisons(call: _Call, arguments: list[str]) -> Iterator[Mutant]:
    if call.op in STRICT:
        text = call.called(STRICT[call.op], arguments)
        yield call.mutant("comparison made strict", f"-> {STRICT[call.op]}", text)
    if call.op in STRICT or call.op in ("eq", "ne"):
        compared = f"torch.{call.op}({', '.join(arguments)})"
        for value, function in ((True, "ones_like"), (False, "zeros_like")):
            text = call.instead(f"torch.{function}({compared})")
            yield call.mutant("mask or position logic", f"always {value}", text)


def _arguments(line: str, start: int) -> tuple[list[str], int]:
    """The arguments of a call whose parenthesis opens before `start`, and where that closes."""
    depth, parts, last = 0, [], start
    for index in range(start, len(line)):
        sign = line[index]
        if sign in "([":
            depth += 1
        elif sign in ")]" and depth:
            depth -= 1
        elif sign == ")":
            parts.append(line[last:index])
            return [part.strip() for part in parts if part.strip()], index
        elif sign == "," and not depth:
            parts.append(line[last:index])
            last = index + 1
    return [], len(line) - 1


def _numbers(call: _Call) -> Iterator[Mutant]:
    """Numbers among the arguments: integers by one, real numbers by 2 %, an epsilon times 300."""
    if call.op in ("to", "zeros", "new_ones", "ones", "full", "arange", "empty"):
        return  # mostly codes of dtypes and layouts
    line = call.line
    named = line.find("=", call.opens)
    for found in _NUMBER.finditer(line, call.opens, len(line) if named < 0 else named):
        for kind, new in _moved(found[0], call.op):
            text = line[: found.start()] + repr(new) + line[found.end() :]
            yield call.mutant(kind, f"{found[0]} at {found.start()} -> {new}", text)


def _moved(text: str, op: str) -> list[tuple[str, float]]:
    """A number in other words: the kind of mutant, and the number."""
    if "." in text or "e" in text:
        value = float(text)
        if 0 < value <= EPSILON_AT_MOST:
            return [("epsilon times 300", value * 300)]
        return [("constant moved", value * 1.02 if value else 0.01)]
    kind = "axis moved" if op in TAKES_AXES else "constant moved"
    return [(kind, int(text) + step) for step in (1, -1)] if abs(int(text)) < 2**40 else []


def _interface_mutants(code: Mapping[str, list[str]], config: Any) -> Iterator[Mutant]:
    """The outer `forward`: inputs ignored, shifted, clipped or exchanged; outputs exchanged."""
    name = next(name for name in code if name.endswith("___torch_mangle_0.py"))  # the outermost is numbered first
    text = "\n".join(code[name])
    arguments = re.findall(r"^    (\w+): Tensor", text, re.MULTILINE)
    head, body = _forward(text)
    for argument, spec in zip(arguments, config.inputs, strict=True):
        for detail, value in _instead(argument, spec, config):
            new = f"    {argument}_wrong = {value}\n" + re.sub(rf"\b{argument}\b", f"{argument}_wrong", body)
            yield Mutant("mask or position logic", f"{spec.name} {detail}", _file(name, head + new))
    cached = [a for a, spec in zip(arguments, config.inputs, strict=True) if spec.role in ("past_key", "past_value")]
    for first, second in [*pairwise(cached), *zip(cached, cached[2:], strict=False)]:
        swapped = re.sub(rf"\b({first}|{second})\b", lambda found: second if found[0] == first else first, body)  # noqa: B023
        yield Mutant("inputs or outputs exchanged", f"{first} for {second}", _file(name, head + swapped))
    found = re.search(r"return \((.*?),?\)\s*$", body)
    outputs = [part.strip() for part in found[1].split(",") if part.strip()] if found else []
    for index in range(len(outputs) - 1):
        swapped_outputs = [*outputs[:index], outputs[index + 1], outputs[index], *outputs[index + 2 :]]
        new = body[: found.start()] + f"return ({', '.join(swapped_outputs)},)\n" if found else body
        detail = f"output {index} for {index + 1}"
        yield Mutant("inputs or outputs exchanged", detail, _file(name, head + new))


def _forward(text: str) -> tuple[str, str]:
    """The head of the file up to where the body of `forward` begins, and the body."""
    start = text.index("def forward")
    begin = text.index(":\n", text.index("->", start)) + 2
    return text[:begin], text[begin:] + "\n"


def _instead(argument: str, spec: Any, config: Any) -> Iterator[tuple[str, str]]:
    if spec.role == "attention_mask":
        yield "ignored", f"torch.ones_like({argument})"
        yield "shifted by one", f"torch.roll({argument}, [1], [-1])"
    if spec.role in ("token_type_ids", "position_ids"):
        yield "ignored", f"torch.zeros_like({argument})"
    if spec.role in ("position_ids", "token_ids", "sentence_ids"):
        largest = (
            (getattr(config, "max_positions", None) or 64) if spec.role == "position_ids" else config.vocabulary_size
        )
        yield "clipped at half", f"torch.clamp({argument}, 0, {largest // 2})"
        yield "clipped at the last but one", f"torch.clamp({argument}, 0, {largest - 2})"
    if spec.role in ("pixel_values", "signal") and spec.dtype == "float":
        yield "clipped at 4", f"torch.clamp({argument}, -4, 4)"
    if spec.role in ("past_key", "past_value"):
        yield "ignored", f"torch.zeros_like({argument})"
        yield "clipped at 2", f"torch.clamp({argument}, -2, 2)"


def _file(name: str, text: str) -> Edit:
    def edit(records: Records) -> None:
        records[name] = text.encode()

    return edit


def _constant_mutants(records: Records) -> Iterator[Mutant]:
    """Constants of one integer, which lie in files of their own."""
    for name, data in records.items():
        if re.fullmatch(r"[^/]+/constants/\d+", name) and len(data) == 8:
            (value,) = struct.unpack("<q", data)
            for step in (1, -1):
                if abs(value) < 10**6:
                    moved = struct.pack("<q", value + step)
                    yield Mutant("constant moved", f"{name} {value} -> {value + step}", _record(name, moved))


def _record(name: str, data: bytes) -> Edit:
    def edit(records: Records) -> None:
        records[name] = data

    return edit


def _weight_mutants(records: Records, weights: Mapping[bytes, Any]) -> Iterator[Mutant]:
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for name, data in records.items():
        if not re.fullmatch(r"[^/]+/data/\d+", name) or (values := weights.get(data)) is None:
            continue
        if values.dtype.kind != "f" or values.size < 16:
            continue
        by_shape.setdefault(values.shape, []).append(name)
        for kind, detail, change in changes(values):
            changed = np.ascontiguousarray(change(values)).tobytes()
            yield Mutant(kind, f"{name} {detail}", _record(name, changed), stored=True)
    for names in by_shape.values():
        for first, second in pairwise(names):
            if records[first] != records[second]:
                yield Mutant("two weights exchanged", f"{first} and {second}", _swapped(first, second), stored=True)


def _swapped(first: str, second: str) -> Edit:
    def edit(records: Records) -> None:
        records[first], records[second] = records[second], records[first]

    return edit
