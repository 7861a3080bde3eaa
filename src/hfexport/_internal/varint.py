"""Varints, the integers of protobuf messages (https://protobuf.dev/programming-guides/encoding/#varints)."""

from __future__ import annotations

__all__ = ["varint"]


def varint(value: int) -> bytes:
    """Encode an integer of at least 0 in base 128, least significant group first."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
