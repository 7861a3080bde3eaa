"""Opcodes that are followed without running anything, and the reason for each pickle that is refused."""

from __future__ import annotations

from io import BytesIO

import pytest

from hfexport.checkpoint import torch_pickle
from hfexport.checkpoint.torch_pickle import Call, Name, PickleRefusedError, follow

REFUSED: dict[str, tuple[bytes, str]] = {
    "a memo that was not written": (b"h\x05.", "it reads a memo that it never wrote"),
    "a set": (b"\x8f.", "it has the opcode EMPTY_SET, which no table of tensors needs"),
    "a call of a number": (b"K\x01)R.", "it calls "),
    "a call with a number": (b"cos\nsystem\nK\x01R.", "it calls os.system"),
    "a key alone": (b"}(K\x01u.", "a key without a value"),
    "a tuple for a key": (b"}(K\x01\x85K\x02u.", "keys are neither text nor numbers"),
    "items of no list": (b"}K\x01a.", "it adds items to a value that is no list"),
    "items of no dictionary": (b"]K\x01K\x02s.", "it adds items to a value that is no dict"),
    "too short a stack": (b"K\x01\x86.", "it takes more values from its stack than there are"),
    "no end": (b"K\x01", "it is damaged: "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_pickle_is_refused_with_its_reason(case: str) -> None:
    content, said = REFUSED[case]
    with pytest.raises(PickleRefusedError) as refused:
        follow(BytesIO(b"\x80\x02" + content))
    assert said in str(refused.value)


def test_a_pickle_of_too_many_opcodes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_pickle, "MAX_OPCODES", 9)
    assert follow(BytesIO(b"\x80\x02" + b"K\x01" * 8 + b".")) == 1
    with pytest.raises(PickleRefusedError, match="it has more than 9 opcodes"):
        follow(BytesIO(b"\x80\x02" + b"K\x01" * 9 + b"."))


def test_calls_are_described_and_not_made() -> None:
    made = follow(BytesIO(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R."))
    assert isinstance(made, Call)
    assert (made.target, made.arguments) == (Name("os", "system"), ("true",))
    assert follow(BytesIO(b"\x80\x02ccollections\nOrderedDict\n)R.")) == {}
