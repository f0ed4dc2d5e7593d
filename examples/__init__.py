"""Drivers that people run, and learn from. Each is a package of its own."""
