"""A framebuffer that two domains see at once, shown by VNC: ``python -m examples.framebuffer``.

The front end draws (drawer.py, canvas.py, card.py), the back end displays (display.py, viewer.py).
What both know: protocol.py (Xen's fbif.h and kbdif.h) and surface.py. Needs numpy: the extra
``framebuffer``.
"""
