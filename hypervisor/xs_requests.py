"""What the store answers to each request of the XenStore wire protocol.

`answer` is all: a request of a connection in, the bytes of the reply and the store's effects out.
The reply is to be sent before events for the same connection. There is always exactly one, whatever
came in; a request that is refused gets an ERROR with the name of an errno value.

Rules, in this order, as in xenstored: an unknown type is ENOSYS; what only domain 0 may do is
EACCES for anybody else; a transaction that is not the connection's is ENOENT (WATCH and UNWATCH do
not look at it); arguments that are not there are EINVAL; a reply that would be too long is E2BIG.

Left out, with ENOSYS, which the protocol allows: SET_FEATURE. Of CONTROL there is help and quota.
INTRODUCE takes a page and a port, and has no use for them: who can be reached here, and how, is the
machine's business. RELEASE removes the nodes of the domain, as in xenstored.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import astuple
from typing import NamedTuple

from hypervisor.store import Effect, Store
from hypervisor.store_domains import QUOTAS
from hypervisor.store_errors import StoreError
from hypervisor.store_paths import home
from hypervisor.store_permissions import Caller, parse, render
from hypervisor.xs_wire import (
    FEATURE_DOMID_ANY,
    FEATURE_WATCHDEPTH,
    PAYLOAD_MAX,
    Op,
    Packet,
    pack,
    unpack,
)

_SELF = 0x7FF0  # DOMID_SELF
_NUMBER = re.compile(rb"[0-9]{1,10}")


class Answered(NamedTuple):
    """The reply to the connection that asked, and what to tell whom after that."""

    reply: bytes
    effects: list[Effect]


class _Done(NamedTuple):
    payload: bytes = b"OK\0"
    effects: list[Effect] = []  # noqa: RUF012 - nobody changes it


class _Request(NamedTuple):
    store: Store
    caller: Caller
    tx: int
    payload: bytes

    def one(self) -> str:
        """The only argument."""
        parts = unpack(self.payload)
        if len(parts) != 1 or self.payload[-1:] != b"\0":
            raise StoreError("EINVAL", "one argument was expected")
        return _text(parts[0])

    def parts(self, least: int, most: int | None = None) -> list[bytes]:
        """All arguments; ``most`` is as ``least`` if it is not given."""
        parts = unpack(self.payload)
        if not least <= len(parts) <= (least if most is None else most):
            raise StoreError("EINVAL", f"{len(parts)} arguments")
        return parts


def answer(store: Store, caller: Caller, packet: Packet) -> Answered:
    """Do what it asks for."""
    kind, req_id, tx, _ = packet
    try:
        done = _perform(store, caller, packet)
        if len(done.payload) > PAYLOAD_MAX:
            raise StoreError("E2BIG", f"a reply of {len(done.payload)} bytes")
    except StoreError as error:
        kind, done = Op.ERROR, _Done(pack([error.errno.encode("ascii")]))
    return Answered(Packet(kind, req_id, tx, done.payload).encode(), done.effects)


def _perform(store: Store, caller: Caller, packet: Packet) -> _Done:
    handler = _HANDLERS.get(packet.type)
    if handler is None:
        raise StoreError("ENOSYS", f"there is no request of type {packet.type}")
    if packet.type in _PRIVILEGED and caller.domid != 0:
        raise StoreError("EACCES", f"only domain 0 may do {Op(packet.type).name}")
    if packet.type not in _WITHOUT_TRANSACTION:
        store.check_transaction(caller, packet.tx_id)
    return handler(_Request(store, caller, packet.tx_id, packet.payload))


# --- nodes ----------------------------------------------------------------------------------------


def _directory(r: _Request) -> _Done:
    return _Done(r.store.listing(r.caller, r.one(), r.tx).packed)


def _directory_part(r: _Request) -> _Done:
    """From an offset into what DIRECTORY would reply as many whole names as fit; an empty one ends
    the last part. The generation in front of them is the same as long as nothing has changed.
    """
    path, start = r.parts(2)
    offset = _number(start)
    generation, packed = r.store.listing(r.caller, _text(path), r.tx)
    head = b"%d\0" % generation
    end = packed.rfind(b"\0", offset, offset + PAYLOAD_MAX - len(head) - 1) + 1
    if offset >= len(packed):
        return _Done(head + b"\0")
    return _Done(head + packed[offset:end] + (b"\0" if end == len(packed) else b""))


def _read(r: _Request) -> _Done:
    return _Done(r.store.read(r.caller, r.one(), r.tx))


def _get_perms(r: _Request) -> _Done:
    perms = r.store.get_perms(r.caller, r.one(), r.tx)
    return _Done(pack(entry.encode("ascii") for entry in render(perms)))


def _write(r: _Request) -> _Done:
    path, nul, value = r.payload.partition(b"\0")
    if not nul:
        raise StoreError("EINVAL", "WRITE without a path")
    return _Done(effects=r.store.write(r.caller, _text(path), value, r.tx))


def _mkdir(r: _Request) -> _Done:
    return _Done(effects=r.store.mkdir(r.caller, r.one(), r.tx))


def _rm(r: _Request) -> _Done:
    return _Done(effects=r.store.rm(r.caller, r.one(), r.tx))


def _set_perms(r: _Request) -> _Done:
    path, *entries = r.parts(2, PAYLOAD_MAX)
    perms = parse(map(_text, entries))
    return _Done(effects=r.store.set_perms(r.caller, _text(path), perms, r.tx))


# --- watches and transactions ---------------------------------------------------------------------


def _watch(r: _Request) -> _Done:
    path, token, *more = r.parts(2, 3)
    depth = _number(more[0]) if more else None
    return _Done(effects=r.store.watch(r.caller, _text(path), token, depth))


def _unwatch(r: _Request) -> _Done:
    path, token = r.parts(2)
    r.store.unwatch(r.caller, _text(path), token)
    return _Done()


def _reset_watches(r: _Request) -> _Done:
    r.store.reset_watches(r.caller)
    return _Done()


def _transaction_start(r: _Request) -> _Done:
    return _Done(b"%d\0" % r.store.transaction_start(r.caller, r.tx))


def _transaction_end(r: _Request) -> _Done:
    how = r.one()
    if how not in ("T", "F"):
        raise StoreError("EINVAL", "TRANSACTION_END takes T or F")
    return _Done(effects=r.store.transaction_end(r.caller, r.tx, commit=how == "T"))


# --- domains --------------------------------------------------------------------------------------


def _introduce(r: _Request) -> _Done:
    domid, _page, port = r.parts(3, 4)[:3]
    if not _number(port):
        raise StoreError("EINVAL", "INTRODUCE without an event channel")
    return _Done(effects=r.store.introduce(_domid(domid)))


def _release(r: _Request) -> _Done:
    return _Done(effects=r.store.release(_domid(r.one()), remove_nodes=True))


def _get_domain_path(r: _Request) -> _Done:
    return _Done(pack([home(_domid(r.one())).encode("ascii")]))


def _is_domain_introduced(r: _Request) -> _Done:
    domid = _domid(r.one())
    there = domid == _SELF or r.store.domains.is_introduced(domid)
    return _Done(b"T\0" if there else b"F\0")


def _resume(r: _Request) -> _Done:
    r.store.domains.resume(_domid(r.one()))
    return _Done()


def _set_target(r: _Request) -> _Done:
    domid, target = r.parts(2)
    r.store.domains.set_target(_domid(domid), _domid(target))
    return _Done()


# --- settings -------------------------------------------------------------------------------------


def _get_feature(r: _Request) -> _Done:
    parts = [part for part in r.parts(0, 1) if part]
    if parts and r.caller.domid != 0:
        raise StoreError("EACCES", "only domain 0 may ask for another's features")
    if parts and not r.store.domains.is_introduced(_domid(parts[0])):
        raise StoreError("ENOENT", "GET_FEATURE of a domain that is not there")
    return _Done(b"%d\0" % (FEATURE_WATCHDEPTH | FEATURE_DOMID_ANY))


def _get_quota(r: _Request) -> _Done:
    parts = [part for part in r.parts(0, 2) if part]
    if not parts:
        return _Done(pack([" ".join(QUOTAS).encode("ascii")]))
    domid = _domid(parts[0]) if len(parts) == 2 else None
    name = QUOTAS.get(_text(parts[-1]))
    if name is None:
        raise StoreError("EINVAL", "there is no such quota")
    return _Done(b"%d\0" % getattr(r.store.domains.quota(domid), name))


def _set_quota(r: _Request) -> _Done:
    *of, name, limit = r.parts(2, 3)
    r.store.domains.set_quota(_domid(of[0]) if of else None, _text(name), _number(limit))
    return _Done()


def _control(r: _Request) -> _Done:
    match [_text(part) for part in unpack(r.payload)]:
        case ["help"]:
            return _Done(b"help\nquota [<domid>]\n\0")
        case ["quota", *of] if len(of) < 2:
            quota = r.store.domains.quota(_domid(of[0].encode("ascii")) if of else None)
            rows = zip(QUOTAS, astuple(quota), strict=True)
            return _Done(pack([b"".join(b"%-18s%d\n" % (n.encode(), v) for n, v in rows)]))
    raise StoreError("EINVAL", "CONTROL: see help")


def _text(part: bytes) -> str:
    """As latin-1, which every byte is a character of; where it matters, the others are refused."""
    return part.decode("latin-1")


def _number(part: bytes) -> int:
    if _NUMBER.fullmatch(part) is None:
        raise StoreError("EINVAL", f"{part[:20]!r} is not a number")
    return int(part)


def _domid(part: bytes | str) -> int:
    number = _number(part.encode("latin-1") if isinstance(part, str) else part)
    if number > 0xFFFF:
        raise StoreError("EINVAL", f"{number} is not a domid")
    return number


_HANDLERS: dict[int, Callable[[_Request], _Done]] = {
    Op.CONTROL: _control,
    Op.DIRECTORY: _directory,
    Op.READ: _read,
    Op.GET_PERMS: _get_perms,
    Op.WATCH: _watch,
    Op.UNWATCH: _unwatch,
    Op.TRANSACTION_START: _transaction_start,
    Op.TRANSACTION_END: _transaction_end,
    Op.INTRODUCE: _introduce,
    Op.RELEASE: _release,
    Op.GET_DOMAIN_PATH: _get_domain_path,
    Op.WRITE: _write,
    Op.MKDIR: _mkdir,
    Op.RM: _rm,
    Op.SET_PERMS: _set_perms,
    Op.IS_DOMAIN_INTRODUCED: _is_domain_introduced,
    Op.RESUME: _resume,
    Op.SET_TARGET: _set_target,
    Op.RESET_WATCHES: _reset_watches,
    Op.DIRECTORY_PART: _directory_part,
    Op.GET_FEATURE: _get_feature,
    Op.GET_QUOTA: _get_quota,
    Op.SET_QUOTA: _set_quota,
}
_PRIVILEGED = {
    Op.CONTROL,
    Op.INTRODUCE,
    Op.RELEASE,
    Op.IS_DOMAIN_INTRODUCED,
    Op.RESUME,
    Op.SET_TARGET,
    Op.GET_QUOTA,
    Op.SET_QUOTA,
}
_WITHOUT_TRANSACTION = {Op.WATCH, Op.UNWATCH}
