"""Every public name says what it is: what a package exports, and the public methods of its classes.

Attributes of dataclasses and messages are told in the docstring of their class; a method that
overrides one which is documented needs no words of its own.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

PACKAGES = ("actors", "hypervisor", "transport", "xenidc")


def undocumented(package: str) -> list[str]:
    """Names of ``package`` and of its classes' methods that have no docstring."""
    module = importlib.import_module(package)
    found = []
    for name in module.__all__:
        value = getattr(module, name)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        if not _own_doc(value):
            found.append(f"{package}.{name}")
        if inspect.isclass(value):
            found += [f"{package}.{name}.{method}" for method in _bare_methods(value)]
    return found


def _own_doc(value: Any) -> bool:
    doc = value.__doc__
    # What dataclasses write by themselves says nothing: "Name(field: type)".
    return bool(doc) and not doc.startswith(f"{value.__name__}(")


def _bare_methods(cls: type) -> list[str]:
    return [
        name
        for name, member in vars(cls).items()
        if not name.startswith("_")
        and (inspect.isfunction(member) or isinstance(member, property | classmethod))
        and not inspect.getdoc(getattr(cls, name))
        and not any(inspect.getdoc(vars(base).get(name)) for base in cls.__mro__[1:])
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_documented(package: str) -> None:
    assert undocumented(package) == []
