"""USB devices whose back end may die at any moment, on a bus that real kernels use:
``python -m examples.usb``.

backend.py is the back end and runs a device (device.py) of functions: mass_storage.py with scsi.py
on volume.py, keyboard.py, serial.py; function.py is what a new one subclasses. host_device.py is
the back end of a real device, by libusb.py. protocol.py is what front and back end say to each
other. host.py is the front end, a host controller's port at a channel; controller.py decides in it.
server.py exports ports by USB/IP and by usbredir; connection.py is one client of it. Pure:
chapter9.py, descriptors.py, device.py, function.py and the classes, controller.py, urb.py,
frames.py, usbip.py, usbip_session.py, usbredir.py, usbredir_session.py, usbredir_streams.py.
"""
