"""The shape of the project: imports run downward only, and a package is its `__init__`.

Rules (each is a function that returns what breaks it, so that it can be shown a bad sample too):

1. examples -> xenidc -> transport -> hypervisor -> actors; a lower one never imports a higher.
2. From outside, a package is imported by its own name only: `from hypervisor import Machine`.
3. Drivers are packages of their own: one example never imports another.
4. A front end never imports a back end, nor the other way round: they meet in their protocol
   module. A back end is a module with a `BackEnd` or `Filter` subclass; only who puts a machine
   together (imports `Machine`) or the package's surface may name it.
5. Beside the standard library only what pyproject.toml declares is imported, and pykka only by the
   layer that is about actors.
6. Every module says at its top what it owns; every package surface says what is public.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterable

import pytest

from tests.sources import Source, sources

LAYERS = ("actors", "hypervisor", "transport", "xenidc", "examples")
THIRD_PARTY = {
    "pykka": {"actors"},
    "msgpack": set(LAYERS),
    "pytest": {"actors", "xenidc"},  # their plugins
    "click": {"xenidc"},
    "rich": {"xenidc"},
    "prometheus_client": {"xenidc"},
    "opentelemetry": {"xenidc"},
    "tqdm": {"examples"},
    "numpy": {"examples"},
    "usb1": {"examples"},
}

PROJECT = sources(*LAYERS)


def upward_imports(modules: Iterable[Source]) -> list[str]:
    return [
        f"{source.name}:{line} imports {module}, which is above it"
        for source in modules
        for module, _, line in source.imports()
        if _layer(module) in LAYERS and LAYERS.index(_layer(module)) > LAYERS.index(source.layer)
    ]


def deep_imports(modules: Iterable[Source]) -> list[str]:
    return [
        f"{source.name}:{line} reaches into {module}; its public names are in {_package(module)}"
        for source in modules
        for module, names, line in source.imports()
        if _layer(module) in LAYERS
        and _package(module) != _package(source.name)
        and not source.layer == _layer(module) == "examples"  # there is a rule for these
        and (
            module != _package(module)
            or any(f"{module}.{name}" in {other.name for other in PROJECT} for name in names)
        )
    ]


def imports_between_examples(modules: Iterable[Source]) -> list[str]:
    """A device may be used by a driver of another kind: then they share its protocol, and who puts
    the machine together starts its back end. What is in no example's folder is for all of them.
    """
    modules = list(modules)
    shared = {m.name for m in modules if m.name == _package(m.name) and not m.is_package}
    return [
        f"{source.name}:{line} imports {module}, another example"
        for source in modules
        if not _takes(source, "hypervisor", "Machine")
        for module, names, line in source.imports()
        if source.layer == _layer(module) == "examples"
        and _package(source.name) != _package(module)
        and module not in shared
        and f"{_package(module)}.protocol" not in {module, *(f"{module}.{name}" for name in names)}
    ]


def fronts_that_know_their_back(modules: Iterable[Source]) -> list[str]:
    modules = list(modules)
    backs = {source.name for source in modules if _is_back_end(source)}
    fronts = {source.name for source in modules if _takes(source, "transport", "connect")}
    fronts |= {source.name for source in modules if _takes(source, "transport", "FrontEnd")}
    fronts -= {source.name for source in modules if _uses_another_example(source)}
    found = []
    for source in modules:
        if source.is_package or _takes(source, "hypervisor", "Machine"):
            continue
        others = fronts - backs if source.name in backs else backs
        for module, names, line in source.imports():
            named = {module, *(f"{module}.{name}" for name in names)}
            found += [
                f"{source.name}:{line} imports {other}: front and back meet in their protocol"
                for other in sorted(named & others)
            ]
    return found


def undeclared_imports(modules: Iterable[Source]) -> list[str]:
    return [
        f"{source.name}:{line} imports {module}"
        for source in modules
        for module, _, line in source.imports()
        if _layer(module) not in LAYERS
        and _layer(module) not in sys.stdlib_module_names
        and source.layer not in THIRD_PARTY.get(_layer(module), set())
    ]


def modules_without_a_head(modules: Iterable[Source]) -> list[str]:
    found = []
    for source in modules:
        if not ast.get_docstring(source.tree):
            found.append(f"{source.name} does not say at its top what it owns")
        if source.is_package and source.layer != "examples" and not _declares_all(source):
            found.append(f"{source.name} does not say in __all__ what is public")
    return found


Rule = Callable[[Iterable[Source]], list[str]]
RULES: list[Rule] = [
    upward_imports,
    deep_imports,
    imports_between_examples,
    fronts_that_know_their_back,
    undeclared_imports,
    modules_without_a_head,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_project_has_no(rule: Rule) -> None:
    broken = rule(PROJECT)
    assert not broken, "\n".join(broken)


def test_every_layer_is_there_to_be_checked() -> None:
    assert {source.layer for source in PROJECT} == set(LAYERS)


BACK = Source.of(
    "examples.disk.back", "'''Back.'''\nfrom transport import BackEnd\nclass D(BackEnd): pass"
)


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        (upward_imports, Source.of("actors.a", "from hypervisor import Machine")),
        (upward_imports, Source.of("hypervisor.a", "def f():\n  import transport")),
        (deep_imports, Source.of("transport.a", "from hypervisor.memory import Region")),
        (deep_imports, Source.of("transport.a", "import actors.mailbox")),
        (imports_between_examples, Source.of("examples.usb.a", "from examples.block import X")),
        (imports_between_examples, Source("examples.usb.a", ast.parse("from ..block import X"))),
        (imports_between_examples, Source.of("examples.usb.a", "from examples.block import disk")),
        (undeclared_imports, Source.of("hypervisor.a", "import pykka")),
        (undeclared_imports, Source.of("transport.a", "import numpy")),
        (modules_without_a_head, Source.of("actors.a", "import os")),
        (modules_without_a_head, Source("actors", ast.parse("'''Doc.'''"), is_package=True)),
        (
            fronts_that_know_their_back,
            Source.of("examples.disk.front", "from examples.disk.back import D"),
        ),
        (
            fronts_that_know_their_back,
            Source.of("examples.disk.front", "from examples.disk import back"),
        ),
    ],
)
def test_a_bad_sample_is_found_by(rule: Rule, bad: Source) -> None:
    assert len(rule([BACK, bad])) == 1


def test_a_back_end_that_imports_its_front_is_found() -> None:
    front = Source.of("examples.disk.front", "from transport import connect")
    back = Source.of(
        "examples.disk.back",
        "from transport import BackEnd\nfrom examples.disk import front\nclass D(BackEnd): pass",
    )
    assert len(fronts_that_know_their_back([front, back])) == 1


def test_a_driver_may_share_the_protocol_of_another_kind_of_device() -> None:
    samples = [
        Source.of("examples.usb.a", "from examples.block import protocol"),
        Source.of("examples.usb.b", "import examples.block.protocol"),
    ]
    assert imports_between_examples(samples) == []


def test_who_puts_the_machine_together_may_name_both_ends() -> None:
    main = Source.of(
        "examples.disk.main",
        "from hypervisor import Machine\nfrom transport import connect\n"
        "from examples.disk.back import D",
    )
    assert fronts_that_know_their_back([BACK, main]) == []


def _layer(module: str) -> str:
    return module.partition(".")[0]


def _package(module: str) -> str:
    """The package whose surface a module belongs to; each example is one of its own."""
    return ".".join(module.split(".")[: 2 if _layer(module) == "examples" else 1])


def _takes(source: Source, module: str, name: str) -> bool:
    return any(module == taken and name in names for taken, names, _ in source.imports())


def _uses_another_example(source: Source) -> bool:
    """It is a front of a device of another kind, which may serve a back end of this one."""
    return any(
        source.layer == _layer(module) == "examples" and _package(source.name) != _package(module)
        for module, _, _ in source.imports()
    )


def _is_back_end(source: Source) -> bool:
    return any(
        isinstance(base, ast.Name) and base.id in ("BackEnd", "Filter")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef)
        for base in node.bases
    )


def _declares_all(source: Source) -> bool:
    return any(
        isinstance(target, ast.Name) and target.id == "__all__"
        for node in source.tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
    )
