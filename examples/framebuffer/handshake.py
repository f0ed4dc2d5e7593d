"""The first phase of an RFB connection: from the version to the viewer's ClientInit. Pure, no I/O.

The connection around it sends `GREETING`, feeds what arrives to `Handshake.receive` and sends what
that returns, until `outcome` is set. What has to be random is passed in: the challenge.

    version -> [3.3: we name the security type | 3.7, 3.8: the viewer chooses from ours]
            -> [challenge -> response -> result] -> ClientInit -> READY
                                             failed: a word about it, and CLOSE

Rules:
1. With a password the only security type is VNC authentication, without one it is None. There is
   no way around: a choice that was not offered ends the connection.
2. Nothing is remembered but what the next step needs: at most 16 bytes.
3. Bytes behind ClientInit are the viewer's first messages: `leftover`.

Corner cases: a result for None exists from 3.8 on; a reason for a failure too. A version that
nobody has defined (RealVNC 4 says 003.889, some say 003.005) is taken for the one below it that is.
The wish to be alone (ClientInit's flag) is read and not granted: viewers share.

Specification: rfbproto.rst, "Handshaking Messages" and "VNC Authentication".
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from typing import Final

from examples.framebuffer import rfb
from examples.framebuffer.des import vnc_response
from transport import RemoteProtocolError

GREETING: Final = rfb.VERSIONS[8]
READY: Final = "ready"
CLOSE: Final = "close"

_VERSION: Final = re.compile(rb"RFB (\d{3})\.(\d{3})\n")


class Handshake:
    """One viewer's way in.

    Args:
        password: None lets everybody in.
        challenge: 16 random bytes, used for this viewer only.
    """

    def __init__(self, password: bytes | None, challenge: bytes) -> None:
        self.outcome: str | None = None
        self.why = ""
        self.version = 0
        self._password = password
        self._challenge = challenge
        self._input = bytearray()
        self._step: tuple[int, Callable[[bytes], bytes]] = (rfb.VERSION_BYTES, self._on_version)

    @property
    def leftover(self) -> bytes:
        """What arrived behind the end of the handshake."""
        return bytes(self._input)

    def receive(self, data: bytes | memoryview) -> bytes:
        """Take in what has arrived; returns what is to be sent.

        Raises:
            RemoteProtocolError: the viewer does not speak this protocol. Close its connection.
        """
        self._input += data
        output = b""
        while self.outcome is None and len(self._input) >= self._step[0]:
            length, step = self._step
            item = bytes(self._input[:length])
            del self._input[:length]
            output += step(item)
        return output

    def _on_version(self, line: bytes) -> bytes:
        found = _VERSION.fullmatch(line)
        if found is None:
            raise RemoteProtocolError(f"{line!r} is not a version of RFB")
        major, minor = map(int, found.groups())
        if (major, minor) < (3, 3):
            raise RemoteProtocolError(f"version {major}.{minor} of RFB is too old")
        self.version = 8 if major > 3 else max(known for known in rfb.VERSIONS if known <= minor)
        kind = rfb.SECURITY_NONE if self._password is None else rfb.SECURITY_VNC
        if self.version == 3:
            return rfb.LENGTH.pack(kind) + self._begin(kind)
        self._step = (1, self._on_choice)
        return bytes([1, kind])

    def _on_choice(self, choice: bytes) -> bytes:
        kind = rfb.SECURITY_NONE if self._password is None else rfb.SECURITY_VNC
        if choice[0] != kind:
            raise RemoteProtocolError(f"security type {choice[0]} was not offered")
        return self._begin(kind)

    def _begin(self, kind: int) -> bytes:
        if kind == rfb.SECURITY_VNC:
            self._step = (rfb.CHALLENGE_BYTES, self._on_response)
            return self._challenge
        self._step = (1, self._on_client_init)
        return rfb.LENGTH.pack(rfb.RESULT_OK) if self.version == 8 else b""

    def _on_response(self, response: bytes) -> bytes:
        assert self._password is not None
        if hmac.compare_digest(response, vnc_response(self._password, self._challenge)):
            self._step = (1, self._on_client_init)
            return rfb.LENGTH.pack(rfb.RESULT_OK)
        self.outcome = CLOSE
        self.why = "wrong password"
        reason = self.why.encode()
        answer = rfb.LENGTH.pack(rfb.RESULT_FAILED)
        return answer + rfb.LENGTH.pack(len(reason)) + reason if self.version == 8 else answer

    def _on_client_init(self, _shared: bytes) -> bytes:
        self.outcome = READY
        return b""
