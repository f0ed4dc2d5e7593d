"""Measurements of this beside others, in one run: ``make bench``. How to read them: README.md."""
