"""Whatever octets a stranger sends, `decode` answers with the structure or with WireError, and with nothing else."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgora.wire.codec import decode, encode
from edgora.wire.errors import WireError
from edgora.wire.market import Allocation, TaskPayload
from edgora.wire.pbft import decode_message

ALLOCATION = Allocation(1, b"d" * 32, ((0, 1),), bytes(16), None, "exact", 5)


def test_text_that_is_no_utf8_is_a_wire_error() -> None:
    data = encode(ALLOCATION).replace(b"exact", b"e\xff\xfect")
    with pytest.raises(WireError, match="utf-8"):
        decode(data, Allocation)


@given(st.binary(max_size=200))
def test_octets_at_random(data: bytes) -> None:
    for kind in (Allocation, TaskPayload):
        with pytest.raises(WireError):
            decode(data, kind)


@given(st.integers(0, len(encode(ALLOCATION)) - 1), st.integers(0, 255))
def test_one_octet_changed(place: int, octet: int) -> None:
    data = bytearray(encode(ALLOCATION))
    data[place] = octet
    with contextlib.suppress(WireError):
        assert encode(decode(bytes(data), Allocation)) == bytes(data)


@given(st.binary(max_size=200))
def test_messages_at_random(data: bytes) -> None:
    with contextlib.suppress(WireError):
        decode_message(data)
