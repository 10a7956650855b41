"""Where WebSocket frames end, and the one frame that is ours to send."""

from __future__ import annotations

import os
import struct

GOING_AWAY = struct.pack("!H", 1001)
"""The status that says that an endpoint goes away and another may be there (RFC 6455 7.4.1)."""

_CLOSE = 0x8


class FrameEnds:
    """Follows one direction of a WebSocket by its frames' headers (RFC 6455 5.2), whatever they carry.

    :ivar closed: a Close has begun, behind which nothing may come (RFC 6455 5.5.1)
    """

    __slots__ = ("_begun", "_left", "closed")

    def __init__(self) -> None:
        self.closed = False
        self._begun = b""
        self._left = 0

    @property
    def between_frames(self) -> bool:
        """A frame of our own can be sent now."""
        return not self._left and not self._begun

    def follow(self, data: bytes) -> None:
        """Takes note of bytes that pass."""
        if self._left >= len(data):
            self._left -= len(data)
            return
        data = self._begun + data[self._left :]
        at = 0
        while at < len(data):
            size = _size(data, at)
            if size is None:
                self._begun, self._left = data[at:], 0
                return
            self.closed = self.closed or data[at] & 0x0F == _CLOSE
            at += size
        self._begun, self._left = b"", at - len(data)


def _size(data: bytes, at: int) -> int | None:
    """Bytes of the frame that begins there; None where its length is not there yet."""
    if len(data) < at + 2:
        return None
    masked, length = data[at + 1] >> 7, data[at + 1] & 0x7F
    if length < 126:
        return 2 + 4 * masked + length
    extended = 2 if length == 126 else 8
    if len(data) < at + 2 + extended:
        return None
    return 2 + extended + 4 * masked + int.from_bytes(data[at + 2 : at + 2 + extended], "big")


def close_frame(*, masked: bool) -> bytes:
    """A Close that says ``GOING_AWAY``.

    :param masked: as whatever goes to a server has to be (RFC 6455 5.3)
    """
    if not masked:
        return b"\x88\x02" + GOING_AWAY
    key = os.urandom(4)
    return b"\x88\x82" + key + bytes(byte ^ mask for byte, mask in zip(GOING_AWAY, key, strict=False))
