"""USB devices whose back end may die, on a bus that real hosts use: ``python -m examples.usb``."""
