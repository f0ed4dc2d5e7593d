"""A disk whose back end may die at any moment, served by NBD: ``python -m examples.block``.

disk.py is the back end and owns the image; protocol.py is what front and back end say to each
other; server.py is the front end, an NBD server that is an ordinary user of the channel, and
connection.py one client of it. Pure parts of those two: nbd.py, handshake.py, transmission.py.
"""
