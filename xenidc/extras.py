"""What needs a library that is not always there: one function for each, and one error that says
what to install.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from hypervisor import Machine
from transport import FrontEnd
from xenidc.errors import FaceError

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider
    from prometheus_client import CollectorRegistry


def metrics(machine: Machine, channels: Mapping[str, FrontEnd]) -> CollectorRegistry:
    """What the machine and these channels do, as a registry of prometheus_client; read anew at each
    scrape.

    Args:
        channels: by the names that they are to have there.

    Raises:
        FaceError: the extra ``metrics`` is not installed.
    """
    try:
        from xenidc.collector import registry_of  # noqa: PLC0415 - only where it is there
    except ModuleNotFoundError as error:
        raise _missing(error, "prometheus_client", "metrics") from error
    return registry_of(machine, channels)


def serve_metrics(machine: Machine, channels: Mapping[str, FrontEnd], address: str) -> str:
    """Serve `metrics` by HTTP until the machine ends; returns the URL.

    Whoever reaches it may read it.

    Args:
        address: "HOST:PORT"; port 0: any that is free.

    Raises:
        FaceError: the extra ``metrics`` is not installed, or nobody can listen there.
    """
    registry = metrics(machine, channels)
    from xenidc.scrapes import serve  # noqa: PLC0415 - as above

    return serve(machine.system, registry, address)


def record_spans(
    machine: Machine, channels: Mapping[str, FrontEnd], provider: TracerProvider | None = None
) -> Callable[[], None]:
    """From now on each request of these channels is a span of OpenTelemetry, when it has ended.

    It is called by the operation (the body, or its first part); its kind is client, its status that
    of the request. A span has no parent: a channel does not know what its caller was about.

    Args:
        provider: whose tracer to use; None: that which is set for the process.

    Returns what ends that.

    Raises:
        FaceError: the extra ``otel`` is not installed, or no provider is set for the process.
        ChannelClosed: one of them has ended.
    """
    try:
        from xenidc.spans import begin  # noqa: PLC0415 - only where it is there
    except ModuleNotFoundError as error:
        raise _missing(error, "opentelemetry", "otel") from error
    return begin(machine, channels, provider)


def _missing(error: ModuleNotFoundError, library: str, extra: str) -> Exception:
    if error.name is None or error.name.partition(".")[0] != library:
        return error
    return FaceError(f"this needs the extra {extra!r}: pip install 'xenidc[{extra}]'")
