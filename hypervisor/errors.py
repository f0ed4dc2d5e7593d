"""What can go wrong between a domain and the hypervisor.

``Local...`` would be ours, ``Remote...`` the peer's; a hypercall's refusal is the caller's own
fault and says so. Every error of this package is a `HypervisorError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from hypervisor.xenbus import Side


class HypervisorError(Exception):
    """Base of every error that this package raises."""


class HypercallError(HypervisorError):
    """The hypervisor refused a hypercall; the text says which and why. Nothing was changed."""


class BadGrant(HypercallError):
    """The grant reference does not exist, or is not for the calling domain."""


class GrantInUse(HypercallError):
    """The grant is mapped, or was granted on: its owner waits for that to end, or revokes it."""


class QuotaExceeded(HypercallError):
    """The calling domain has as much of that as it may have. Nobody else is affected."""


class GrantRevoked(HypervisorError):
    """The granter took its memory back; nothing done here reaches it any more."""


class BadPort(HypercallError):
    """The event channel port does not exist, or is not for the calling domain to bind."""


class StalePort(BadPort):
    """That port was closed since, or its peer closed the other end. Nothing was signalled."""


class NotPermitted(HypercallError):
    """Only the control domain may do that."""


class VirqBound(HypercallError):
    """The domain has bound that virtual IRQ to a port already."""


class StaleEpoch(HypercallError):
    """The message belongs to a connection that has already ended. It was dropped, not executed."""


class IllegalTransition(HypercallError):
    """One of the two ends of a pairing broke the protocol of xenbus.py. Nothing was changed.

    Attributes:
        fault: who; None after a hypercall, over which only the text comes back, which says it too.
    """

    def __init__(self, text: str, fault: Side | None = None) -> None:
        super().__init__(text)
        self.fault = fault


class WatchClosed(HypervisorError):
    """The watch, or what follows the log, was closed by its owner; nothing more comes of it."""


class NotPublished(HypercallError):
    """That domain offers the calling one no endpoint now."""


class DomainDead(HypervisorError):
    """The domain has ended; hypercalls in its name are no longer possible."""


class DomainStartError(HypervisorError):
    """A domain could not start.

    Attributes:
        error: type name of what its program raised, or of what ended the process.
        text: its message.
        details: traceback text of the domain, empty where there is none.
    """

    def __init__(self, name: str, error: str, text: str, details: str = "") -> None:
        super().__init__(f"domain {name!r} could not start: {error}: {text}")
        self.name = name
        self.error = error
        self.text = text
        self.details = details

    @classmethod
    def of(cls, name: str, error: BaseException) -> Self:
        """``error`` as one of these, unless it is."""
        return error if isinstance(error, cls) else cls(name, type(error).__name__, str(error))


class NotAProcess(HypervisorError):
    """The domain is placed on a thread: it cannot be paused or confined, and has no pid or log."""


class BadCpus(HypervisorError, ValueError):
    """Not processors that the caller may use, or not one alone where a pair needs one."""


class HardeningFailed(HypervisorError):
    """The kernel refused a part of what `Hardening` asks for; the domain does not start."""


class MachineFailed(HypervisorError):
    """The machine's supervisor gave up: its domains failed more often than its intensity allows."""


class SocketInUse(HypervisorError):
    """A live server listens on that unix socket already."""


class NotASocket(HypervisorError):
    """Something that is not a unix socket stands at the path; it was left alone."""
