"""The store driven by lines of text, and what it answers as text: for tables.

A line is ``<domid>[.<connection>][/<transaction>] <operation> <arguments>``; a transaction has the
name that ``start`` gave it. What comes back is the value, the names, the permissions, the events
(``<to> <path> <token>``, several with a semicolon), ``-`` for nothing, or the name of the error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hypervisor.store import Effect, Store
from hypervisor.store_errors import Compacted, StoreError
from hypervisor.store_log import Wake
from hypervisor.store_permissions import Caller, parse, render
from hypervisor.store_quota import Quota


def who(caller: Caller) -> str:
    return f"{caller.domid}.{caller.connection}" if caller.connection else str(caller.domid)


def say(effects: Iterable[Effect]) -> str:
    told = []
    for effect in effects:
        if isinstance(effect, Wake):
            told.append(f"wake {who(effect.to)} {effect.token.decode()}")
        else:
            told.append(f"{who(effect.to)} {effect.path} {effect.token.decode()}")
    return "; ".join(told) or "-"


class Script:
    """A store with the domains 1 to 3, whose homes nobody has heard of."""

    def __init__(self, quota: Quota | None = None, **options: int) -> None:
        self.store = Store(quota, **options)
        for domid in (1, 2, 3):
            self.store.introduce(domid)
        self._transactions: dict[tuple[Caller, str], int] = {}

    def __call__(self, line: str) -> str:
        speaker, operation, *arguments = line.split(" ")
        speaker, _, name = speaker.partition("/")
        domid, _, connection = speaker.partition(".")
        caller = Caller(int(domid), int(connection or 0))
        tx = self._transactions.get((caller, name), 999) if name else 0
        run: Callable[..., str] = getattr(self, f"_{operation}")
        try:
            return run(caller, tx, *arguments)
        except StoreError as error:
            return error.errno
        except Compacted as error:
            values = ", ".join(f"{p}={v.decode()}" for p, v in error.snapshot.items())
            return f"compacted at {error.revision}: {values}"

    def run(self, *lines: str) -> list[str]:
        return [self(line) for line in lines]

    def _read(self, caller: Caller, tx: int, path: str) -> str:
        return self.store.read(caller, path, tx).decode() or "''"

    def _ls(self, caller: Caller, tx: int, path: str) -> str:
        return " ".join(self.store.directory(caller, path, tx)) or "-"

    def _perms(self, caller: Caller, tx: int, path: str) -> str:
        return " ".join(render(self.store.get_perms(caller, path, tx)))

    def _write(self, caller: Caller, tx: int, path: str, value: str = "") -> str:
        return say(self.store.write(caller, path, value.encode(), tx))

    def _mkdir(self, caller: Caller, tx: int, path: str) -> str:
        return say(self.store.mkdir(caller, path, tx))

    def _rm(self, caller: Caller, tx: int, path: str) -> str:
        return say(self.store.rm(caller, path, tx))

    def _chmod(self, caller: Caller, tx: int, path: str, *entries: str) -> str:
        return say(self.store.set_perms(caller, path, parse(entries), tx))

    def _start(self, caller: Caller, tx: int, name: str) -> str:
        self._transactions[caller, name] = number = self.store.transaction_start(caller, tx)
        return str(number)

    def _commit(self, caller: Caller, tx: int) -> str:
        return say(self.store.transaction_end(caller, tx, commit=True))

    def _abort(self, caller: Caller, tx: int) -> str:
        return say(self.store.transaction_end(caller, tx, commit=False))

    def _watch(self, caller: Caller, _: int, path: str, token: str, depth: str = "") -> str:
        at_most = int(depth) if depth else None
        return say(self.store.watch(caller, path, token.encode(), at_most))

    def _unwatch(self, caller: Caller, _: int, path: str, token: str) -> str:
        self.store.unwatch(caller, path, token.encode())
        return "-"

    def _reset(self, caller: Caller, _: int) -> str:
        self.store.reset_watches(caller)
        return "-"

    def _disconnect(self, caller: Caller, _: int) -> str:
        self.store.disconnect(caller)
        return "-"

    def _follow(self, caller: Caller, _: int, path: str, token: str) -> str:
        self.store.follow(caller, path, token.encode())
        return "-"

    def _unfollow(self, caller: Caller, _: int, token: str) -> str:
        self.store.unfollow(caller, token.encode())
        return "-"

    def _since(self, caller: Caller, _: int, path: str, revision: str) -> str:
        """``path: old -> new`` for each."""
        changes = self.store.since(caller, path, int(revision)).changes
        told = [
            f"{change.path}: {_shown(change.old)} -> {_shown(change.new)}" for change in changes
        ]
        return ", ".join(told) or "-"

    def _introduce(self, _: Caller, __: int, domid: str) -> str:
        return say(self.store.introduce(int(domid)))

    def _release(self, _: Caller, __: int, domid: str, remove: str = "") -> str:
        return say(self.store.release(int(domid), remove_nodes=bool(remove)))

    def _crash(self, _: Caller, __: int, domid: str) -> str:
        return say(self.store.shut_down(int(domid)))

    def _resume(self, _: Caller, __: int, domid: str) -> str:
        self.store.domains.resume(int(domid))
        return "-"

    def _target(self, _: Caller, __: int, domid: str, target: str) -> str:
        self.store.domains.set_target(int(domid), int(target))
        return "-"


def _shown(value: bytes | None) -> str:
    return "absent" if value is None else value.decode() or "''"


def play(script: Script, table: Iterable[tuple[str, str]]) -> None:
    """Every line of it has to be answered like that."""
    for line, expected in table:
        assert (line, script(line)) == (line, expected)
