"""The life of a channel, as two tables: what each end does when it is told a word of the other.

Pure. A row is (own state, the word that is told) -> (own state from then on, what to do), in the
states of `XenbusState`; which word may be said when, by whom, and the epochs are the bus's own
(hypervisor/xenbus.py). A pair that is not in a table cannot happen between correct peers.

An end that is Closed has no epoch, and waits for one; an end that is Unknown waits for nothing.
Closing is told so that what is in flight can be finished: nothing new begins in that epoch, and
nobody waits for the other: Closed may follow at once. What is left then has not happened, or is
settled in the next epoch.

Corner case: a back end may have closed an epoch by itself (a front end that broke the protocol).
Words of it that were under way then find it Closed, and are nothing to it.
"""

from __future__ import annotations

from hypervisor import XenbusState

UNKNOWN, INITIALISING, INIT_WAIT, INITIALISED, CONNECTED = list(XenbusState)[:5]
CLOSING, CLOSED = list(XenbusState)[5:7]

Table = dict[tuple[XenbusState, XenbusState], tuple[XenbusState, tuple[str, ...]]]

FRONT: Table = {
    (CLOSED, INITIALISING): (INITIALISING, ("prepare",)),
    (INITIALISING, INIT_WAIT): (INITIALISED, ("offer",)),
    (INITIALISED, CONNECTED): (CONNECTED, ("open",)),
    **{(own, CLOSING): (CLOSING, ("hold",)) for own in (INITIALISING, INITIALISED, CONNECTED)},
    **{
        (own, CLOSED): (CLOSED, ("reset",))
        for own in (INITIALISING, INITIALISED, CONNECTED, CLOSING)
    },
    **{
        (own, UNKNOWN): (UNKNOWN, ("reset", "end"))
        for own in (INITIALISING, INITIALISED, CONNECTED, CLOSING)
    },
    (CLOSED, UNKNOWN): (UNKNOWN, ("end",)),
}

BACK: Table = {
    (CLOSED, INITIALISING): (INIT_WAIT, ("wait",)),
    (INIT_WAIT, INITIALISING): (INIT_WAIT, ()),  # `advertise` has answered it before
    (INIT_WAIT, INITIALISED): (CONNECTED, ("accept",)),
    (CONNECTED, CONNECTED): (CONNECTED, ()),
    **{(own, CLOSING): (CLOSING, ("finish",)) for own in (INIT_WAIT, CONNECTED)},
    **{
        (own, over): (CLOSED, ("drop",))
        for own in (INIT_WAIT, CONNECTED, CLOSING)
        for over in (CLOSED, UNKNOWN)
    },
    **{(CLOSED, late): (CLOSED, ()) for late in (CONNECTED, CLOSING, CLOSED, UNKNOWN)},
}


def mermaid() -> str:
    """Both tables as a Mermaid state diagram: a label is the word that is told, / what is done."""
    lines = ["stateDiagram-v2"]
    for name, table in (("front", FRONT), ("back", BACK)):
        lines.append(f'    state "{name} end" as {name} {{')
        lines.append(f"        [*] --> {name}_{CLOSED.label}")
        states = sorted({state for (own, _), (after, _) in table.items() for state in (own, after)})
        lines += [f'        state "{state.label}" as {name}_{state.label}' for state in states]
        labels: dict[tuple[XenbusState, XenbusState, tuple[str, ...]], list[str]] = {}
        for (own, told), (after, actions) in table.items():
            labels.setdefault((own, after, actions), []).append(told.label)
        for (own, after, actions), told_labels in labels.items():
            done = " / " + ", ".join(actions) if actions else ""
            arrow = f"{name}_{own.label} --> {name}_{after.label}"
            lines.append(f"        {arrow} : {' or '.join(told_labels)}{done}")
        lines.append("    }")
    return "\n".join(lines) + "\n"
