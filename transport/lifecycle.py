"""The life of a channel, as a table: what each end does when the other says a new state.

Pure. The words of the two ends, their order and the epochs are in hypervisor/bus.py; a word of an
epoch that is over has been dropped before it gets here. A pair (state, event) that is not in a
table cannot happen between correct peers.

    front:  WAITING --init_wait/offer--> OFFERED --connected/open--> OPEN
               ^                            |                         |
               +------------closed/reset----+-------------------------+
    any state --gone/end--> ENDED

    back:   (none) --initialised/accept--> SERVING --closed/drop--> (none)
"""

from __future__ import annotations

from hypervisor import CLOSED, CONNECTED, GONE, INIT_WAIT, INITIALISED

WAITING, OFFERED, OPEN, ENDED, SERVING = "waiting", "offered", "open", "ended", "serving"

Table = dict[tuple[str, str], tuple[str, str]]

FRONT: Table = {
    (WAITING, INIT_WAIT): (OFFERED, "offer"),
    (OFFERED, CONNECTED): (OPEN, "open"),
    (OFFERED, CLOSED): (WAITING, "reset"),
    (OPEN, CLOSED): (WAITING, "reset"),
    (WAITING, GONE): (ENDED, "end"),
    (OFFERED, GONE): (ENDED, "end"),
    (OPEN, GONE): (ENDED, "end"),
}

BACK: Table = {
    (WAITING, INITIALISED): (SERVING, "accept"),
    (SERVING, CLOSED): (WAITING, "drop"),
    (WAITING, CLOSED): (WAITING, "ignore"),  # the front end gave up before it was accepted
}
