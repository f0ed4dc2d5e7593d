"""What a channel has done, in figures."""

from __future__ import annotations

from dataclasses import dataclass

from transport.latency import Latency


@dataclass(frozen=True)
class Statistics:
    """What a channel has done so far.

    Attributes:
        requests: ended requests.
        resent: requests that were sent again to a new back end.
        unknown: requests that ended in `OutcomeUnknown`.
        epochs: connections that were opened.
        in_flight: requests that have not ended.
        free_bytes: of buffer memory.
        revoke_seconds: for each back end that went, how long taking the memory back took.
        faults: back ends that broke the protocol.
        bytes: that ended requests carried: in their buffers, or by data phases.
        latency: how long ended requests took, from when the channel took them.
    """

    requests: int
    resent: int
    unknown: int
    epochs: int
    in_flight: int
    free_bytes: int
    revoke_seconds: list[float]
    faults: int
    bytes: int
    latency: Latency
