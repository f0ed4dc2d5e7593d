"""The tests; a package so that they share `tests.leaks` under one name."""
