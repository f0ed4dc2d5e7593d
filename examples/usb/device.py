"""A USB device as a host sees it: the states of chapter 9, its endpoints, its descriptors. Pure.

Owns the device's state (default, address, configured), which endpoints are halted, the numbers of
interfaces and endpoints, and the strings; the classes are functions (function.py). Rules:

1. A request is answered from one table, or by the function that it names, or by STALL. A stall of
   endpoint 0 ends with its transfer; one of another endpoint is a halt, which the host clears.
2. One configuration, number 1, with one setting for each interface. Choosing it again, and
   choosing an interface's setting, begins its functions again.
3. Functions with more than one interface are joined by an association descriptor, and the device
   then says so by its class (0xEF, 2, 1).
4. Endpoints that have answered NAK are remembered until `take_ready` has told that they would not
   any more.

Corner cases: an endpoint that the present state does not have does not answer, which a host sees as
IOERROR. Data toggles are the bus's own matter and not visible in a URB. Remote wakeup: no; the host
is told so, and SET_FEATURE refuses it.

Specification: USB 2.0 sections 9.1 (states) and 9.4 (standard requests).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar, Final

from examples.usb import chapter9 as c9
from examples.usb import descriptors
from examples.usb import protocol as p
from examples.usb.descriptors import Endpoint, Identity
from examples.usb.function import Function, Result, Stalled

DEFAULT: Final = "default"
ADDRESS: Final = "address"
CONFIGURED: Final = "configured"

CONFIGURATION: Final = 1  # the value of the one configuration

_TO_DEVICE: Final = c9.STANDARD | c9.DEVICE
_TO_INTERFACE: Final = c9.STANDARD | c9.INTERFACE
_TO_ENDPOINT: Final = c9.STANDARD | c9.ENDPOINT
_SELF_POWERED: Final = 1
_ENDPOINT_NUMBERS: Final = 15
_WITH_ASSOCIATIONS: Final = (0xEF, 2, 1)  # class, subclass, protocol

_Handler = Callable[["Device", c9.Setup, bytes], bytes]


class Device:
    """A device of ``functions``.

    Raises:
        ValueError: the functions have more endpoints than a device has numbers for.
    """

    speed = p.SPEED_HIGH

    def __init__(self, identity: Identity, functions: Sequence[Function]) -> None:
        self.state = DEFAULT
        self.address = 0
        self._functions = list(functions)
        self._strings: list[str] = []
        self._owners: list[Function] = []  # by interface
        self._ends: dict[int, tuple[Function, int, Endpoint]] = {}  # by address
        self._halted: set[int] = set()
        self._refused: set[int] = set()  # have answered NAK
        names = (identity.manufacturer_name, identity.product_name, identity.serial_number)
        strings = [self._string(text) for text in names]
        body = b"".join(map(self._describe, self._functions))
        self._configuration = descriptors.configuration(CONFIGURATION, len(self._owners), body)
        if len(self._owners) > len(self._functions):
            kind, subclass, protocol = _WITH_ASSOCIATIONS
            identity = replace(identity, device_class=kind, subclass=subclass, protocol=protocol)
        self._qualifier = descriptors.qualifier(identity)
        self._device = descriptors.device(identity, strings)

    # --- what a host does -------------------------------------------------------------------------

    def reset(self) -> None:
        """The bus is reset: back to the default state."""
        self.state, self.address = DEFAULT, 0
        self._begin(self._functions)

    def control(self, setup: c9.Setup, view: memoryview) -> Result:
        """A control transfer, all its phases. ``view`` is the data phase, `setup.length` bytes."""
        if len(view) != setup.length:
            return p.INVAL, 0
        try:
            answer = self._request(setup, b"" if setup.is_in else bytes(view))
        except Stalled:
            return p.STALL, 0
        if not setup.is_in:
            return p.OK, len(view)
        length = min(len(answer), len(view))
        view[:length] = answer[:length]
        return p.OK, length

    def transfer(self, address: int, view: memoryview) -> Result:
        """A bulk or interrupt transfer."""
        end = self._ends.get(address)
        if end is None or self.state != CONFIGURED:
            return p.IOERROR, 0
        if address in self._halted:
            return p.STALL, 0
        function, index, _ = end
        status, actual = (function.send if address & c9.IN else function.receive)(index, view)
        if status == p.STALL:
            self._halted.add(address)
        elif status == p.NAK:
            self._refused.add(address)
        return status, actual

    def packets(self, address: int, view: memoryview, lengths: Sequence[int]) -> tuple[Result, ...]:
        """An isochronous transfer: every packet has its time, so none is refused or repeated."""
        end = self._ends.get(address)
        if end is None or self.state != CONFIGURED:
            return tuple((p.IOERROR, 0) for _ in lengths)
        function, index, _ = end
        serve = function.send if address & c9.IN else function.receive
        results, at = [], 0
        for length in lengths:
            status, actual = serve(index, view[at : at + length])
            results.append((p.OK if status == p.NAK else status, actual))
            at += length
        return tuple(results)

    def take_ready(self) -> tuple[int, ...]:
        """Addresses that have answered NAK and would not now."""
        ready = tuple(sorted(filter(self._would_answer, self._refused)))
        self._refused.difference_update(ready)
        return ready

    # --- what the world does ----------------------------------------------------------------------

    def input(self, function: int, data: bytes) -> None:
        """Something happens to the function of that place. Raises IndexError without one."""
        self._functions[function].input(data)

    def take_output(self) -> list[tuple[int, bytes]]:
        """What functions have done to the world since then: their places, and bytes."""
        said = [(place, function.output()) for place, function in enumerate(self._functions)]
        return [one for one in said if one[1]]

    # --- building ---------------------------------------------------------------------------------

    def _describe(self, function: Function) -> bytes:
        first, index, parts = len(self._owners), 0, []
        interfaces = function.interfaces(first)
        if len(interfaces) > 1:
            parts.append(descriptors.association(first, interfaces))
        for number, interface in enumerate(interfaces, first):
            self._owners.append(function)
            addresses = []
            for end in interface.endpoints:
                address = self._next_address(end.direction)
                self._ends[address] = (function, index, end)
                addresses.append(address)
                index += 1
            string = self._string(interface.string)
            parts.append(descriptors.interface(number, interface, string, addresses))
        return b"".join(parts)

    def _next_address(self, direction: int) -> int:
        number = 1 + sum(address & c9.IN == direction for address in self._ends)
        if number > _ENDPOINT_NUMBERS:
            raise ValueError(f"a device has at most {_ENDPOINT_NUMBERS} endpoints a direction")
        return direction | number

    def _string(self, text: str) -> int:
        """The index of a string descriptor; 0 for no text."""
        if not text:
            return 0
        if text not in self._strings:
            self._strings.append(text)
        return 1 + self._strings.index(text)

    # --- requests ---------------------------------------------------------------------------------

    def _request(self, setup: c9.Setup, data: bytes) -> bytes:
        if setup.kind == c9.STANDARD:
            handler = self._standard.get((setup.request_type, setup.request))
            if handler is None:
                raise Stalled
            return handler(self, setup, data)
        if self.state != CONFIGURED:
            raise Stalled
        if setup.recipient == c9.INTERFACE:
            return self._owner(setup.index & 0xFF).control(setup, data)
        if setup.recipient == c9.ENDPOINT and setup.index in self._ends:
            return self._ends[setup.index][0].control(setup, data)
        raise Stalled

    def _owner(self, interface: int) -> Function:
        if self.state != CONFIGURED or interface >= len(self._owners):
            raise Stalled
        return self._owners[interface]

    def _checked_endpoint(self, setup: c9.Setup) -> int:
        """The address in the request: endpoint 0, or one that is there now."""
        address = setup.index
        if address & ~c9.IN and (self.state != CONFIGURED or address not in self._ends):
            raise Stalled
        return address

    def _status_of_device(self, _setup: c9.Setup, _data: bytes) -> bytes:
        return _SELF_POWERED.to_bytes(2, "little")

    def _status_of_interface(self, setup: c9.Setup, _data: bytes) -> bytes:
        self._owner(setup.index)
        return bytes(2)

    def _status_of_endpoint(self, setup: c9.Setup, _data: bytes) -> bytes:
        return bytes((self._checked_endpoint(setup) in self._halted, 0))

    def _clear_halt(self, setup: c9.Setup, _data: bytes) -> bytes:
        address = self._checked_endpoint(setup)
        if setup.value != c9.ENDPOINT_HALT:
            raise Stalled
        self._halted.discard(address)
        if address in self._ends:
            function, index, _ = self._ends[address]
            function.cleared(index)
        return b""

    def _set_halt(self, setup: c9.Setup, _data: bytes) -> bytes:
        address = self._checked_endpoint(setup)
        if setup.value != c9.ENDPOINT_HALT or address not in self._ends:
            raise Stalled
        self._halted.add(address)
        return b""

    def _set_address(self, setup: c9.Setup, _data: bytes) -> bytes:
        if self.state == CONFIGURED or setup.value > 127 or setup.index or setup.length:
            raise Stalled
        self.address = setup.value
        self.state = ADDRESS if setup.value else DEFAULT
        return b""

    def _get_descriptor(self, setup: c9.Setup, _data: bytes) -> bytes:
        kind, index = setup.value >> 8, setup.value & 0xFF
        if kind == c9.STRING_DESCRIPTOR and index <= len(self._strings):
            return (
                descriptors.string(self._strings[index - 1]) if index else descriptors.languages()
            )
        found = {
            c9.DEVICE_DESCRIPTOR: self._device,
            c9.CONFIGURATION_DESCRIPTOR: self._configuration,
            c9.DEVICE_QUALIFIER_DESCRIPTOR: self._qualifier,
        }.get(kind)
        if found is None or index:
            raise Stalled
        return found

    def _get_class_descriptor(self, setup: c9.Setup, _data: bytes) -> bytes:
        found = self._owner(setup.index).descriptor(setup.value >> 8)
        if found is None:
            raise Stalled
        return found

    def _get_configuration(self, _setup: c9.Setup, _data: bytes) -> bytes:
        return bytes((CONFIGURATION if self.state == CONFIGURED else 0,))

    def _set_configuration(self, setup: c9.Setup, _data: bytes) -> bytes:
        if self.state == DEFAULT or setup.value not in (0, CONFIGURATION):
            raise Stalled
        self.state = CONFIGURED if setup.value else ADDRESS
        self._begin(self._functions)
        return b""

    def _get_interface(self, setup: c9.Setup, _data: bytes) -> bytes:
        self._owner(setup.index)
        return bytes(1)

    def _set_interface(self, setup: c9.Setup, _data: bytes) -> bytes:
        owner = self._owner(setup.index)
        if setup.value:
            raise Stalled
        self._begin([owner])
        return b""

    def _begin(self, functions: Sequence[Function]) -> None:
        for function in functions:
            self._halted -= {at for at, end in self._ends.items() if end[0] is function}
            function.reset()

    def _would_answer(self, address: int) -> bool:
        function, index, _ = self._ends[address]
        return self.state != CONFIGURED or address in self._halted or function.ready(index)

    _standard: ClassVar[dict[tuple[int, int], _Handler]] = {
        (c9.IN | _TO_DEVICE, c9.GET_STATUS): _status_of_device,
        (c9.IN | _TO_INTERFACE, c9.GET_STATUS): _status_of_interface,
        (c9.IN | _TO_ENDPOINT, c9.GET_STATUS): _status_of_endpoint,
        (_TO_ENDPOINT, c9.CLEAR_FEATURE): _clear_halt,
        (_TO_ENDPOINT, c9.SET_FEATURE): _set_halt,
        (_TO_DEVICE, c9.SET_ADDRESS): _set_address,
        (c9.IN | _TO_DEVICE, c9.GET_DESCRIPTOR): _get_descriptor,
        (c9.IN | _TO_INTERFACE, c9.GET_DESCRIPTOR): _get_class_descriptor,
        (c9.IN | _TO_DEVICE, c9.GET_CONFIGURATION): _get_configuration,
        (_TO_DEVICE, c9.SET_CONFIGURATION): _set_configuration,
        (c9.IN | _TO_INTERFACE, c9.GET_INTERFACE): _get_interface,
        (_TO_INTERFACE, c9.SET_INTERFACE): _set_interface,
    }
    """bmRequestType and bRequest of every standard request that this device has."""
