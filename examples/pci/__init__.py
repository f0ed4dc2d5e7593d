"""Configuration space of a PCI bus that lives in another domain: ``python -m examples.pci``.

emulated.py and host.py are the back ends (a bus of our own making, and the host's devices, which
are only read); access.py and front.py are the front end; protocol.py is what they say to each
other. Pure parts:
errors.py and regs.py (numbers and names), space.py, header.py, capabilities.py, interrupts.py,
function.py, bus.py, devices.py and aer.py (the emulated hardware), scan.py and dump.py (what a
front end makes of any configuration space).
"""
