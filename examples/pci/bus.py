"""An emulated bus: which function answers an address, also behind a bridge.

Pure. Functions sit on bus 0, or behind a bridge of bus 0: there they answer to whatever number its
secondary bus register holds now, as real bridges forward configuration cycles. Nobody answers
elsewhere (`DeviceNotFound`).
"""

from __future__ import annotations

from collections.abc import Mapping

from examples.pci import regs
from examples.pci.errors import DeviceNotFound
from examples.pci.function import Function, Model
from examples.pci.protocol import slot_name


class Bus:
    """Functions made from models.

    Args:
        root: what sits on bus 0, by devfn (device << 3 | function).
        behind: the same for the bus behind each bridge, by the bridge's devfn.
    """

    def __init__(
        self, root: Mapping[int, Model], behind: Mapping[int, Mapping[int, Model]]
    ) -> None:
        self._root = {devfn: Function(model) for devfn, model in root.items()}
        self._behind = {
            bridge: {devfn: Function(model) for devfn, model in models.items()}
            for bridge, models in behind.items()
        }

    def function(self, sbdf: int) -> Function:
        """The function at that address now.

        Raises:
            DeviceNotFound: there is none.
        """
        found = self._on(sbdf >> 8).get(sbdf & 0xFF)
        if found is None:
            raise DeviceNotFound(f"nothing answers at {slot_name(sbdf)}")
        return found

    def _on(self, bus: int) -> Mapping[int, Function]:
        if bus == 0:
            return self._root
        for bridge, functions in self._behind.items():
            if self._root[bridge].read(regs.SECONDARY_BUS, 1) == bus:
                return functions
        return {}
