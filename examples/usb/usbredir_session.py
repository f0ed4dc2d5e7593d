"""One usbredir client's connection, as a state machine. Pure, no I/O.

The same face as usbip_session.py: bytes in, events and bytes out. We say hello; the client's hello
wants a device, whichever is free; then come the descriptions and the connect.

Rules:
1. Every packet of the client that wants an answer gets one, with its identifier. What it cancels is
   answered too, as cancelled: with the end of the transfer, whatever that is. Meanwhile the client
   may use the identifier again (QEMU's are addresses, of rings that it stops and goes on with);
   transfers of one endpoint end in order, so the first answer is the cancelled one's.
2. Interrupt endpoints towards the host are read by ourselves, one transfer after another, from
   start to stop; what comes is sent by numbers of our own. An error is told by the status packet,
   and ends it.
3. Isochronous streams (usbredir_streams.py) are transfers of ours too. To the host, what comes in
   each packet is sent, by numbers of the stream. One that fails ends its stream, which is told as a
   stall; the client may start it again.
4. An endpoint is one of the setting that its interface has now; a client is told of all of them
   whenever that changes.
5. Bulk streams are refused: they are USB 3's. What a client has under way is bounded as in
   usbip_session.py.

Source: usb-redirection-protocol.md of spice/usbredir, version 0.7.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from struct import error, pack, unpack
from typing import Any, Final

from examples.usb import chapter9 as c9
from examples.usb import protocol as p
from examples.usb import usbredir as r
from examples.usb.chapter9 import Setup
from examples.usb.descriptors import EndpointRead
from examples.usb.urb import Urb
from examples.usb.usbip import Exported
from examples.usb.usbip_session import (
    BYTES_LIMIT,
    CLOSING,
    IMPORTING,
    OPERATION,
    URBS,
    URBS_LIMIT,
    Event,
    Reset,
    Submitted,
    Unlinked,
    Wanted,
)
from examples.usb.usbredir_streams import Stream
from transport import RemoteProtocolError

_VERSION: Final = b"xenidc"
_SPEEDS: Final = {p.SPEED_LOW: 0, p.SPEED_FULL: 1, p.SPEED_HIGH: 2}
_NO_ENDPOINT: Final = 255


@dataclass(frozen=True)
class _Asked:
    """What a URB answers: the packet, and how its end is told."""

    packet: r.Packet
    length: int
    tell: Callable[[Urb, r.Packet], bytes]


class RedirSession:
    """Our side of the connection of ``client``, a number that no other one has.

    Attributes:
        state: OPERATION, IMPORTING, URBS or CLOSING.
        greeting: what is to be sent first.
    """

    def __init__(self, client: int) -> None:
        self.state = OPERATION
        hello = r.HELLO_BODY.pack(_VERSION, r.CAPABILITIES)
        self.greeting = r.packet(r.HELLO, 0, hello, 0)
        self._client = client
        self._input = bytearray()
        self._common = 0  # capabilities of both
        self._interfaces: list[tuple[int, int, int]] = []
        self._all_ends: tuple[EndpointRead, ...] = ()
        self._settings: dict[int, int] = {}  # of interfaces, where it is not 0
        self._ends: dict[int, EndpointRead] = {}  # of the present settings
        self._streams: dict[int, Stream] = {}
        self._transfers = count()
        self._under_way: dict[Any, _Asked] = {}
        self._called: dict[int, Any] = {}  # the transfer that the client calls by a packet's number
        self._receiving: dict[int, int] = {}  # interrupt endpoint -> the next number
        self._bytes = 0
        self._output: list[bytes] = []
        self._events: list[Event] = []

    def receive(self, data: bytes | memoryview) -> tuple[list[Event], bytes]:
        """Take in what has arrived; returns what is to be done, and what is to be sent at once.

        Raises:
            RemoteProtocolError: the client does not speak this protocol. Close its connection.
        """
        self._input += data
        while self.state in (OPERATION, URBS):
            found = r.read(self._input, self._common)
            if found is None:
                break
            packet, size = found
            del self._input[:size]
            try:
                self._packet(packet)
            except error:
                raise RemoteProtocolError(f"packet {packet.kind} is malformed") from None
        return self._take()

    def imported(self, device: Exported, _kind_of: object) -> bytes:
        """The answer to `Wanted`: it has the device. Call `receive` again, there may be packets."""
        self.state = URBS
        self._interfaces = list(device.interfaces)
        self._all_ends = device.endpoints
        self._set_settings({})
        body = r.CONNECT_BODY.pack(
            _SPEEDS[device.speed],
            device.device_class,
            device.subclass,
            device.protocol,
            device.vendor,
            device.product,
        )
        if self._common & r.CAP_DEVICE_VERSION:
            body += pack("<H", device.release)
        self._describe()
        self._send(r.DEVICE_CONNECT, 0, body)
        return self._take()[1]

    def refused(self, _status: int) -> bytes:
        """The answer to `Wanted`: it has none. Then the connection is to be closed."""
        self.state = CLOSING
        return b""

    def ended(self, urb: Urb) -> tuple[list[Event], bytes]:
        """A URB has ended; returns what is to be done, and what the client is to be told."""
        number = urb.id[1]
        asked = self._under_way.pop(number)
        if self._called.get(asked.packet.id) == number:
            del self._called[asked.packet.id]
        self._bytes -= asked.length
        self._output.append(asked.tell(urb, asked.packet))
        return self._take()

    def _take(self) -> tuple[list[Event], bytes]:
        events, self._events = self._events, []
        output, self._output = b"".join(self._output), []
        return events, output

    def _send(self, kind: int, number: int, body: bytes) -> None:
        self._output.append(r.packet(kind, number, body, self._common))

    # --- packets of the client --------------------------------------------------------------------

    def _packet(self, packet: r.Packet) -> None:
        if self.state == OPERATION:
            if packet.kind != r.HELLO:
                raise RemoteProtocolError(f"packet {packet.kind} comes before the hello")
            theirs = int.from_bytes(packet.body[64:68], "little")
            self._common = theirs & r.CAPABILITIES
            self.state = IMPORTING
            self._events.append(Wanted(None))
            return
        body = packet.body
        match packet.kind:
            case r.RESET:
                self._set_settings({})
                self._events.append(Reset())
            case r.SET_CONFIGURATION:
                (value,) = unpack("<B", body)
                self._ask(packet, Setup(0, c9.SET_CONFIGURATION, value, 0, 0), self._configured)
            case r.GET_CONFIGURATION:
                self._ask(packet, Setup(c9.IN, c9.GET_CONFIGURATION, 0, 0, 1), self._configured)
            case r.SET_ALT_SETTING:
                interface, value = unpack("<BB", body)
                self._ask(packet, Setup(1, c9.SET_INTERFACE, value, interface, 0), self._set)
            case r.GET_ALT_SETTING:
                (interface,) = unpack("<B", body)
                self._ask(packet, Setup(0x81, c9.GET_INTERFACE, 0, interface, 1), self._set)
            case r.START_ISO_STREAM:
                self._start_stream(packet)
            case r.STOP_ISO_STREAM:
                self._stop_stream(packet)
            case r.START_INTERRUPT_RECEIVING:
                self._start_receiving(packet)
            case r.STOP_INTERRUPT_RECEIVING:
                self._stop_receiving(packet)
            case r.CANCEL_DATA_PACKET:
                if packet.id in self._called:
                    self._events.append(Unlinked((self._client, self._called.pop(packet.id))))
            case r.CONTROL_PACKET:
                self._control(packet)
            case r.BULK_PACKET:
                self._bulk(packet)
            case r.INTERRUPT_PACKET:
                endpoint, _, length = r.SHORT_BODY.unpack_from(body)
                self._transfer(packet, endpoint, c9.INTERRUPT, length, r.SHORT_BODY.size, _short)
            case r.ISO_PACKET:
                self._stream_packet(packet)
            case r.HELLO | r.DEVICE_DISCONNECT_ACK:
                pass
            case _:
                raise RemoteProtocolError(f"packet {packet.kind} is not for us")

    def _control(self, packet: r.Packet) -> None:
        endpoint, request, kind, _, value, index, length = r.CONTROL_BODY.unpack_from(packet.body)
        setup = Setup(kind, request, value, index, length)
        if bool(endpoint & c9.IN) != setup.is_in:
            raise RemoteProtocolError(f"a control request {setup} to endpoint {endpoint:#x}")
        data = packet.body[r.CONTROL_BODY.size :]
        self._ask(packet, setup, self._controlled, data, self._call(packet))

    def _bulk(self, packet: r.Packet) -> None:
        endpoint, _, length, _ = r.BULK_BODY.unpack_from(packet.body)
        size = r.BULK_BODY.size
        if self._common & r.CAP_32_BIT_BULK:
            (high,) = unpack("<H", packet.body[size : size + 2])
            length, size = length | high << 16, size + 2
        if length > p.URB_LIMIT:
            raise RemoteProtocolError(f"a transfer of {length} bytes, {p.URB_LIMIT} allowed")
        self._transfer(packet, endpoint, c9.BULK, length, size, self._bulk_body)

    def _transfer(
        self,
        packet: r.Packet,
        endpoint: int,
        kind: int,
        length: int,
        size: int,
        body: Callable[[r.Packet, int, int], bytes],
    ) -> None:
        data = packet.body[size:]
        if len(data) != (0 if endpoint & c9.IN else length):
            raise RemoteProtocolError(f"a transfer of {length} bytes comes with {len(data)}")

        def tell(urb: Urb, packet: r.Packet) -> bytes:
            head = body(packet, _status(urb), urb.actual)
            return r.packet(packet.kind, packet.id, head + urb.received, self._common)

        number = self._call(packet)
        urb = Urb((self._client, number), endpoint, kind, length, data)
        self._submit(number, urb, _Asked(packet, length, tell))

    def _ask(
        self,
        packet: r.Packet,
        setup: Setup,
        tell: Callable[[Urb, r.Packet], bytes],
        data: bytes = b"",
        number: Any = None,
    ) -> None:
        """A control transfer: the client's own, or one that a packet of another type means."""
        if len(data) != (0 if setup.is_in else setup.length):
            raise RemoteProtocolError(f"a control request {setup} comes with {len(data)} bytes")
        if number is None:
            number = ("meant", packet.id)
        urb = Urb((self._client, number), 0, c9.CONTROL, setup.length, data, setup.pack())
        self._submit(number, urb, _Asked(packet, setup.length, tell))

    def _call(self, packet: r.Packet) -> Any:
        """A number for the transfer that the client calls by the packet's.

        Once it has cancelled that, it may call another one so before it is told of the end.
        """
        if packet.id in self._called:
            raise RemoteProtocolError(f"packet {packet.id} has not ended, and is there again")
        number = self._called[packet.id] = ("called", next(self._transfers))
        return number

    def _submit(self, number: Any, urb: Urb, asked: _Asked) -> None:
        if number in self._under_way:
            raise RemoteProtocolError(f"packet {number} has not ended, and is there again")
        self._under_way[number] = asked
        self._bytes += asked.length
        count = len(self._under_way)
        if count > URBS_LIMIT or self._bytes > BYTES_LIMIT:
            raise RemoteProtocolError(f"{count} transfers of {self._bytes} bytes are under way")
        self._events.append(Submitted(urb))

    # --- interrupt endpoints ----------------------------------------------------------------------

    def _start_receiving(self, packet: r.Packet) -> None:
        (endpoint,) = unpack("<B", packet.body)
        end = self._ends.get(endpoint)
        if end is None or end.kind != c9.INTERRUPT or not endpoint & c9.IN:
            self._receiving_status(packet, endpoint, r.INVAL)
            return
        self._receiving_status(packet, endpoint, r.SUCCESS)
        if endpoint not in self._receiving:
            self._receiving[endpoint] = 0
            if ("receive", endpoint) not in self._under_way:  # else the one that is stopped goes on
                self._receive(packet, end)

    def _stop_receiving(self, packet: r.Packet) -> None:
        (endpoint,) = unpack("<B", packet.body)
        if self._receiving.pop(endpoint, None) is not None:
            self._events.append(Unlinked((self._client, ("receive", endpoint))))
        self._receiving_status(packet, endpoint, r.SUCCESS)

    def _receive(self, packet: r.Packet, end: EndpointRead) -> None:
        number = ("receive", end.address)
        urb = Urb((self._client, number), end.address, end.kind, end.size)
        self._submit(number, urb, _Asked(packet, end.size, self._received))

    def _received(self, urb: Urb, packet: r.Packet) -> bytes:
        endpoint = urb.endpoint
        if endpoint not in self._receiving:
            return b""
        if urb.status in (p.OK, p.CONNRESET):
            told = b""
            if urb.status == p.OK:
                number = self._receiving[endpoint]
                self._receiving[endpoint] = number + 1
                body = r.SHORT_BODY.pack(endpoint, r.SUCCESS, urb.actual) + urb.received
                told = r.packet(r.INTERRUPT_PACKET, number, body, self._common)
            self._receive(packet, self._ends[endpoint])
            return told
        del self._receiving[endpoint]
        body = bytes((_status(urb), endpoint))
        return r.packet(r.INTERRUPT_RECEIVING_STATUS, packet.id, body, self._common)

    def _receiving_status(self, packet: r.Packet, endpoint: int, status: int) -> None:
        self._send(r.INTERRUPT_RECEIVING_STATUS, packet.id, bytes((status, endpoint)))

    # --- isochronous endpoints --------------------------------------------------------------------

    def _start_stream(self, packet: r.Packet) -> None:
        endpoint, packets, transfers = unpack("<BBB", packet.body)
        end = self._ends.get(endpoint)
        known = end is not None and end.kind == c9.ISOCHRONOUS and endpoint not in self._streams
        if end is None or not known or not packets * transfers or packets > p.PACKET_LIMIT:
            self._stream_status(packet.id, endpoint, r.INVAL)
            return
        if packets * end.size > p.URB_LIMIT:
            raise RemoteProtocolError(f"a stream of transfers of {packets} x {end.size} bytes")
        self._streams[endpoint] = stream = Stream(end, packets, transfers)
        self._stream_status(packet.id, endpoint, r.SUCCESS)
        if endpoint & c9.IN:
            for _ in range(transfers):
                self._stream_transfer(packet, stream, (end.size,) * packets)

    def _stop_stream(self, packet: r.Packet) -> None:
        (endpoint,) = unpack("<B", packet.body)
        self._end_stream(endpoint)
        self._stream_status(packet.id, endpoint, r.SUCCESS)

    def _end_stream(self, endpoint: int) -> None:
        stream = self._streams.pop(endpoint, None)
        if stream is not None:
            self._events += [Unlinked((self._client, number)) for number in stream.under_way]

    def _stream_packet(self, packet: r.Packet) -> None:
        endpoint, _, length = r.SHORT_BODY.unpack_from(packet.body)
        data = packet.body[r.SHORT_BODY.size :]
        end = self._ends.get(endpoint)
        if endpoint & c9.IN or end is None or end.kind != c9.ISOCHRONOUS:
            raise RemoteProtocolError(f"an isochronous packet for endpoint {endpoint:#x}")
        if len(data) != length or length > end.size:
            raise RemoteProtocolError(
                f"a packet of {length} bytes comes with {len(data)}, {end.size} allowed"
            )
        stream = self._streams.get(endpoint)
        if stream is not None:  # else it was sent before the client heard that its stream has ended
            stream.put(data)
            self._feed(packet, stream)

    def _feed(self, packet: r.Packet, stream: Stream) -> None:
        while taken := stream.take():
            self._stream_transfer(packet, stream, tuple(map(len, taken)), b"".join(taken))

    def _stream_transfer(
        self, packet: r.Packet, stream: Stream, lengths: tuple[int, ...], data: bytes = b""
    ) -> None:
        number = ("stream", next(self._transfers))
        stream.under_way.add(number)
        size = sum(lengths)
        urb = Urb((self._client, number), stream.end.address, c9.ISOCHRONOUS, size, data)
        urb.packets = lengths
        self._submit(number, urb, _Asked(packet, size, partial(self._streamed, stream)))

    def _streamed(self, stream: Stream, urb: Urb, packet: r.Packet) -> bytes:
        endpoint = stream.end.address
        stream.under_way.discard(urb.id[1])
        if self._streams.get(endpoint) is not stream:
            return b""
        if urb.status != p.OK:
            self._end_stream(endpoint)
            body = bytes((r.STALL, endpoint))
            return r.packet(r.ISO_STREAM_STATUS, packet.id, body, self._common)
        if not urb.is_in:
            self._feed(packet, stream)
            return b""
        told, at = [], 0
        for length, (status, actual) in zip(urb.packets, urb.results, strict=True):
            head = r.SHORT_BODY.pack(endpoint, r.STATUSES.get(status, r.IOERROR), actual)
            body = head + urb.received[at : at + actual]
            told.append(r.packet(r.ISO_PACKET, stream.next_id, body, self._common))
            stream.next_id += 1
            at += length
        self._stream_transfer(packet, stream, urb.packets)
        return b"".join(told)

    def _stream_status(self, number: int, endpoint: int, status: int) -> None:
        self._send(r.ISO_STREAM_STATUS, number, bytes((status, endpoint)))

    # --- how ends are told ------------------------------------------------------------------------

    def _controlled(self, urb: Urb, packet: r.Packet) -> bytes:
        endpoint, request, kind, _, value, index, _ = r.CONTROL_BODY.unpack_from(packet.body)
        head = r.CONTROL_BODY.pack(endpoint, request, kind, _status(urb), value, index, urb.actual)
        return r.packet(packet.kind, packet.id, head + urb.received, self._common)

    def _bulk_body(self, packet: r.Packet, status: int, actual: int) -> bytes:
        endpoint, _, _, stream = r.BULK_BODY.unpack_from(packet.body)
        head = r.BULK_BODY.pack(endpoint, status, actual & 0xFFFF, stream)
        return head + (pack("<H", actual >> 16) if self._common & r.CAP_32_BIT_BULK else b"")

    def _configured(self, urb: Urb, packet: r.Packet) -> bytes:
        value = urb.received[0] if urb.received else Setup.of(urb.setup).value & 0xFF
        if packet.kind == r.SET_CONFIGURATION and urb.status == p.OK:
            self._set_settings({})
            self._describe()
        body = bytes((_status(urb), value))
        return r.packet(r.CONFIGURATION_STATUS, packet.id, body, self._common)

    def _set(self, urb: Urb, packet: r.Packet) -> bytes:
        setup = Setup.of(urb.setup)
        value = urb.received[0] if urb.received else setup.value & 0xFF
        if packet.kind == r.SET_ALT_SETTING and urb.status == p.OK:
            self._set_settings({**self._settings, setup.index: value})
            self._describe()
        body = bytes((_status(urb), setup.index & 0xFF, value))
        return r.packet(r.ALT_SETTING_STATUS, packet.id, body, self._common)

    def _set_settings(self, settings: dict[int, int]) -> None:
        self._settings = settings
        self._ends = {
            end.address: end
            for end in self._all_ends
            if end.setting == settings.get(end.interface, 0)
        }

    def _describe(self) -> None:
        """The interfaces and the endpoints, as they are in the present settings."""
        rows = [dict(enumerate(column)) for column in zip(*self._interfaces, strict=True)]
        numbers = dict(enumerate(range(len(self._interfaces))))
        tables = b"".join(r.table(row) for row in (numbers, *rows))
        self._send(r.INTERFACE_INFO, 0, pack("<I", len(self._interfaces)) + tables)
        ends = {r.place(end.address): end for end in self._ends.values()}
        kinds = {0: c9.CONTROL, 16: c9.CONTROL, **{at: end.kind for at, end in ends.items()}}
        body = r.table(kinds, _NO_ENDPOINT)
        body += r.table({at: end.interval for at, end in ends.items()})
        body += r.table({at: end.interface for at, end in ends.items()})
        if self._common & r.CAP_MAX_PACKET_SIZE:
            body += r.table({at: end.packet for at, end in ends.items()}, width=2)
        self._send(r.EP_INFO, 0, body)


def _status(urb: Urb) -> int:
    return r.STATUSES.get(urb.status, r.IOERROR)


def _short(packet: r.Packet, status: int, actual: int) -> bytes:
    return r.SHORT_BODY.pack(packet.body[0], status, actual)
