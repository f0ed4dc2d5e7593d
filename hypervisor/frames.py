"""Frames on a domain's hypercall socket: one message is one SEQPACKET packet, descriptors beside
it.

AF_UNIX SEQPACKET keeps message borders and order and loses nothing; descriptors travel by
SCM_RIGHTS (unix(7)) and arrive close-on-exec.
"""

from __future__ import annotations

import socket

from actors import Message, Packet, decode, encode

_LARGEST = 1 << 20
_MOST_FDS = 16


def send_frame(sock: socket.socket, message: Message) -> None:
    """Send one message.

    Raises:
        OSError: the other side is gone (BrokenPipeError, ConnectionResetError).
        MessageError: the message cannot be encoded.
    """
    packet = encode(message)
    try:
        socket.send_fds(sock, [packet.payload], list(packet.fds))
    finally:
        packet.close()


def receive_frame(sock: socket.socket) -> Message | None:
    """Receive one message; None at the end of the connection, which an empty packet is taken for.

    Raises:
        MessageError: the other side sent what is no declared message.
        OSError: it sent more bytes or descriptors than a frame has; none of them is kept.
        BlockingIOError: nothing is there, and the socket does not wait.
    """
    try:
        payload, fds, flags, _ = socket.recv_fds(sock, _LARGEST, _MOST_FDS, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return None
    packet = Packet(payload, tuple(fds))
    if not payload:
        packet.close()
        return None
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        packet.close()
        raise OSError("a frame on the hypercall socket was too large and arrived in part")
    return decode(packet)
