"""Interpret a pickle written by `torch.save` without running it.

Unpickling calls any function that the pickle names. This interpreter knows only the opcodes that `torch.save` writes,
and builds only plain values, `Name`s and `Call`s of names; the caller decides the meaning of a call. So nothing of a
pickle runs, and its cost is bounded by its size.

Opcodes: https://github.com/python/cpython/blob/3.11/Lib/pickletools.py
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, NamedTuple

__all__ = ["Call", "Name", "PersistentId", "PickleRefusedError", "described", "follow"]

MAX_OPCODES: Final = 5_000_000
"""Limit of the number of opcodes; a tensor needs about thirty."""


class PickleRefusedError(ValueError):
    """The pickle contains something that a plain table of tensors does not."""


class Name(NamedTuple):
    """A global that the pickle names: `collections`, `OrderedDict`."""

    module: str
    qualified: str

    def __str__(self) -> str:
        return f"{self.module}.{self.qualified}"


@dataclass(frozen=True, eq=False)
class Call:
    """A function call that unpickling would make."""

    target: Name
    arguments: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class PersistentId:
    """A reference to something outside the pickle, such as a storage."""

    value: Any


def described(value: Any) -> str:
    """Describe a value for a message: the global that unpickling would use, or its type."""
    if isinstance(value, Call):
        return f"a call of {value.target}"
    if isinstance(value, PersistentId) and isinstance(value.value, tuple):
        names = [str(part) for part in value.value if isinstance(part, Name)]
        return f"an object stored as {', '.join(names)}" if names else "a reference"
    if isinstance(value, Name):
        return str(value)
    return f"a value of type {type(value).__name__}"


_MARK: Final = object()

_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS: Final = frozenset(
    (
        *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "BINFLOAT", "FLOAT"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BINSTRING", "SHORT_BINSTRING", "STRING"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    )
)
_TUPLES: Final = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED: Final = frozenset(("PROTO", "FRAME"))


def follow(file: BinaryIO) -> Any:
    """Interpret one pickle up to its STOP opcode.

    Args:
        file: positioned at the pickle's first byte; afterwards after its last byte.

    Returns:
        Plain values, with a `Name`, `Call` or `PersistentId` in place of every object. `BUILD` is ignored. An
        `OrderedDict` becomes a `dict`.

    Raises:
        PickleRefusedError: the pickle is damaged, or has an opcode that `torch.save` does not write.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(_opcodes(file)):
            if count > MAX_OPCODES:
                raise PickleRefusedError(f"it has more than {MAX_OPCODES} opcodes")
            if opcode == "STOP":
                return machine.pop()
            machine.step(opcode, argument)
    except IndexError as error:
        raise PickleRefusedError("it takes more values from its stack than there are") from error
    raise PickleRefusedError("it has no end")


def _opcodes(file: BinaryIO) -> Iterator[tuple[str, Any, int | None]]:
    try:
        for opcode, argument, position in pickletools.genops(file):
            yield opcode.name, argument, position
    except (ValueError, OverflowError, MemoryError) as error:  # exceptions that pickletools raises for damaged pickles
        raise PickleRefusedError(f"it is damaged: {error}") from error


class _Machine:
    """Stack and memo of one pickle."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        return self._stack.pop()

    def step(self, opcode: str, argument: Any) -> None:
        """Interpret one opcode.

        Raises:
            PickleRefusedError: `torch.save` does not write the opcode.
            IndexError: the stack has too few elements.
        """
        if opcode in _IGNORED:
            return
        if opcode in _LITERALS:
            self._stack.append(argument)
        elif opcode in _CONSTANTS:
            self._stack.append(_CONSTANTS[opcode])
        elif opcode in _TUPLES:
            count = _TUPLES[opcode]
            self._stack.append(tuple(self._pop_many(count)))
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif opcode == "MEMOIZE":
            self._memo[len(self._memo)] = self._stack[-1]
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            if argument not in self._memo:
                raise PickleRefusedError("it is damaged: it reads a memo that it never wrote")
            self._stack.append(self._memo[argument])
        elif not (self._contain(opcode) or self._refer(opcode, argument)):
            raise PickleRefusedError(f"it has the opcode {opcode}, which no table of tensors needs")

    def _contain(self, opcode: str) -> bool:
        """Interpret an opcode that makes or fills containers; return whether it is one."""
        if opcode == "MARK":
            self._stack.append(_MARK)
        elif opcode == "EMPTY_DICT":
            self._stack.append({})
        elif opcode == "EMPTY_LIST":
            self._stack.append([])
        elif opcode in ("TUPLE", "LIST"):
            values = self._pop_to_mark()
            self._stack.append(tuple(values) if opcode == "TUPLE" else values)
        elif opcode in ("APPEND", "APPENDS"):
            values = self._pop_to_mark() if opcode == "APPENDS" else self._pop_many(1)
            self._container(list).extend(values)
        elif opcode in ("SETITEM", "SETITEMS"):
            self._set_items(self._pop_to_mark() if opcode == "SETITEMS" else self._pop_many(2))
        else:
            return False
        return True

    def _refer(self, opcode: str, argument: Any) -> bool:
        """Interpret an opcode that names, calls or sets up objects; return whether it is one."""
        if opcode == "GLOBAL":
            module, _, qualified = str(argument).partition(" ")
            self._stack.append(Name(module, qualified))
        elif opcode == "STACK_GLOBAL":
            module, qualified = self._pop_many(2)
            self._stack.append(Name(str(module), str(qualified)))
        elif opcode in ("REDUCE", "NEWOBJ"):
            self._call(*self._pop_many(2))
        elif opcode == "BUILD":
            self._stack.pop()
        elif opcode == "BINPERSID":
            self._stack.append(PersistentId(self._stack.pop()))
        else:
            return False
        return True

    def _call(self, target: Any, arguments: Any) -> None:
        if not isinstance(target, Name) or not isinstance(arguments, tuple):
            raise PickleRefusedError(f"it calls {described(target)}")
        if target == Name("collections", "OrderedDict") and not arguments:
            self._stack.append({})
        else:
            self._stack.append(Call(target, arguments))

    def _set_items(self, values: list[Any]) -> None:
        if len(values) % 2:
            raise PickleRefusedError("it is damaged: a key without a value")
        keys = values[::2]
        if any(type(key) not in (str, int) for key in keys):
            raise PickleRefusedError("it has a dictionary whose keys are neither text nor numbers")
        self._container(dict).update(zip(keys, values[1::2], strict=True))

    def _container(self, kind: type[Any]) -> Any:
        if type(self._stack[-1]) is not kind:
            raise PickleRefusedError(f"it adds items to a value that is no {kind.__name__}")
        return self._stack[-1]

    def _pop_many(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise IndexError
        values = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return values

    def _pop_to_mark(self) -> list[Any]:
        for position in range(len(self._stack) - 1, -1, -1):
            if self._stack[position] is _MARK:
                values = self._stack[position + 1 :]
                del self._stack[position:]
                return values
        raise IndexError
