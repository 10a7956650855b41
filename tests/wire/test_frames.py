"""Where frames end is told from their headers, however their bytes arrive."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, SERVER, Protocol, Side

from proxy.wire.frames import FrameEnds, close_frame


def frame(size: int, *, masked: bool) -> bytes:
    return Frame(Opcode.BINARY, b"x" * size).serialize(mask=masked)


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 125, 126, 127, 65535, 65536]), st.booleans()), min_size=1, max_size=4),
    st.lists(st.integers(1, 300_000), max_size=12),
)
def test_between_frames_is_where_a_frame_ends_wherever_the_bytes_are_split(
    frames: list[tuple[int, bool]], cuts: list[int]
) -> None:
    whole, ends = b"", {0}
    for size, masked in frames:
        whole += frame(size, masked=masked)
        ends.add(len(whole))
    follower = FrameEnds()
    assert follower.between_frames
    for start, stop in pairwise([0, *sorted({cut for cut in cuts if cut < len(whole)}), len(whole)]):
        follower.follow(whole[start:stop])
        assert follower.between_frames == (stop in ends)


@pytest.mark.parametrize("size", [0, 5, 126, 70_000])
def test_every_single_byte_is_followed(size: int) -> None:
    follower, whole = FrameEnds(), frame(size, masked=True)
    for position in range(len(whole)):
        follower.follow(whole[position : position + 1])
        assert follower.between_frames == (position == len(whole) - 1)


@pytest.mark.parametrize("side", [CLIENT, SERVER])
def test_our_close_is_one_for_whoever_gets_it(side: Side) -> None:
    receiver = Protocol(side)
    receiver.receive_data(close_frame(masked=side is SERVER))
    assert receiver.close_rcvd is not None
    assert receiver.close_rcvd.code == 1001
