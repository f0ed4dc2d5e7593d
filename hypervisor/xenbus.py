"""The states of a front and a back end, which of them may follow when, and how they are watched.

Pure. `TABLE` is the whole handshake: for each side, which state may follow which, in which state of
the other. The names and numbers are XenbusState's (xen/include/public/io/xenbus.h); the order is
that of blkif.h for connecting, and that of the PCI drivers for reconfiguring:

    epoch n   front: Initialising            Initialised            Connected
              back:  Initialising  InitWait               Connected

Rules:
1. A front end and a back end that meet are a *pairing*, and every pairing is an **epoch**, a number
   that only grows. Every state belongs to one; a word of an epoch that is over is `StaleEpoch`:
   dropped, nobody's fault. So what a side says of an old pairing can never reach a new one.
2. An epoch is over as soon as one side says Closed, dies, or is replaced; nobody waits for the
   other. Exactly then there is one `EndEpoch`, before anybody is told: revoke, close, fence.
3. Either side may say Closing (in flight is finished, nothing new begins) or Closed at any time.
   The other one, when it hears of it, may say the same of its own end in that epoch, to no effect.
4. Whoever is told of a new epoch has been told before that the old one is over, also if nobody had
   closed it: a device that is replaced is never mistaken for the old one.
5. Closed: that epoch is over, another may follow. Unknown: the other side is gone for good.
6. What a side cannot know yet is no fault of it: while the other is Closing, what was right in the
   state that it began to close in is right still. All else that is not in the table is an
   `IllegalTransition`, and says whose fault it is.

Differences from Xen. Front ends that say Connected before the back end does (netif) and back ends
that say Initialised (pciif) are not in the table: one order serves every driver. A close and reopen
is a new epoch instead of Closed -> InitWait in the old one. Only the bus makes a pairing.

At the end: `LevelObserver`, how a Linux guest watches xenbus, and `RevisionObserver`, how we do.
The first is only there to show what it loses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from typing import Any

from hypervisor.errors import IllegalTransition, StaleEpoch


class XenbusState(IntEnum):
    """The state of one end, in the numbers of xenbus.h."""

    UNKNOWN = 0
    INITIALISING = 1
    INIT_WAIT = 2
    INITIALISED = 3
    CONNECTED = 4
    CLOSING = 5
    CLOSED = 6
    RECONFIGURING = 7
    RECONFIGURED = 8

    @property
    def label(self) -> str:
        """Its name as in Xen: ``InitWait``."""
        return "".join(word.capitalize() for word in self.name.split("_"))


UNKNOWN, INITIALISING, INIT_WAIT, INITIALISED, CONNECTED = list(XenbusState)[:5]
CLOSING, CLOSED, RECONFIGURING, RECONFIGURED = list(XenbusState)[5:]


class Side(Enum):
    """Who does something, and whose fault it is."""

    FRONT = "front end"
    BACK = "back end"
    BUS = "bus"


FRONT, BACK, BUS = Side

Row = tuple[Side, XenbusState, XenbusState]

CONNECTING: dict[Row, XenbusState] = {
    (BACK, INITIALISING, INIT_WAIT): INITIALISING,
    (FRONT, INITIALISING, INITIALISED): INIT_WAIT,
    (BACK, INIT_WAIT, CONNECTED): INITIALISED,
    (FRONT, INITIALISED, CONNECTED): CONNECTED,
}
RECONFIGURATION: dict[Row, XenbusState] = {
    (BACK, CONNECTED, RECONFIGURING): CONNECTED,
    (FRONT, CONNECTED, RECONFIGURING): RECONFIGURING,
    (BACK, RECONFIGURING, RECONFIGURED): RECONFIGURING,
    (FRONT, RECONFIGURING, CONNECTED): RECONFIGURED,
    (BACK, RECONFIGURED, CONNECTED): CONNECTED,
}
_LIVE = dict.fromkeys((side, own) for side, own, _ in CONNECTING | RECONFIGURATION)
TABLE: dict[Row, XenbusState | None] = {
    **CONNECTING,
    **RECONFIGURATION,
    **{(side, own, CLOSING): None for side, own in _LIVE},
    **{(side, own, CLOSED): None for side, own in _LIVE},
    **{(side, CLOSING, CLOSED): None for side in (FRONT, BACK)},
}
"""(side, its state, its next state) -> the state that the other must be in; None: any."""


# --- the pairing ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class End:
    """``state`` is where it is; ``live`` where it was when it began to close, or the same."""

    state: XenbusState
    live: XenbusState

    @property
    def over(self) -> bool:
        """It takes no part in this epoch any more."""
        return self.state in (CLOSED, UNKNOWN)


@dataclass(frozen=True, slots=True)
class Joint:
    """Both ends of a pairing. Epoch 0: there has been none yet."""

    epoch: int
    front: End
    back: End

    @property
    def over(self) -> bool:
        """Nothing of this epoch is worth anything any more."""
        return self.front.over or self.back.over

    def end(self, side: Side) -> End:
        """The end of ``side``."""
        return self.front if side is FRONT else self.back


WAITING = Joint(0, End(INITIALISING, INITIALISING), End(CLOSED, CLOSED))
"""A front end that no back end has come for yet."""


@dataclass(frozen=True, slots=True)
class Say:
    """A side says its new state."""

    epoch: int
    state: XenbusState
    details: Any = None


@dataclass(frozen=True, slots=True)
class Pair:
    """The bus brings a front and a back end together, in a new epoch."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Died:
    """The bus has found the side dead; ``returns``: there will be another in its place."""

    reason: Any = None
    returns: bool = False


Event = Say | Pair | Died


@dataclass(frozen=True, slots=True)
class EndEpoch:
    """Take back everything of that epoch, before the effects that follow."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell ``to`` that the other side is in ``state`` in that epoch."""

    to: Side
    epoch: int
    state: XenbusState
    details: Any = None


Effect = EndEpoch | Tell
Outcome = tuple[Joint, tuple[Effect, ...]]


def step(joint: Joint, side: Side, event: Event) -> Outcome:
    """What becomes of a pairing, and what is to be done, in order, when ``side`` does that.

    Raises:
        StaleEpoch: it is about an epoch that is over; nobody's fault.
        IllegalTransition: it may not be; says whose fault.
    """
    match event:
        case Say() if side is not BUS:
            return _say(joint, side, event)
        case Died() if side is not BUS:
            return _died(joint, side, event)
        case Pair() if side is BUS:
            return _pair(joint, event)
    raise IllegalTransition(f"the {side.value}'s fault: {type(event).__name__} is not its", side)


def _say(joint: Joint, side: Side, said: Say) -> Outcome:
    own, other = joint.end(side), joint.end(_other(side))
    row = (side, own.state, said.state)
    if said.epoch > joint.epoch:
        raise IllegalTransition(
            f"the {side.value}'s fault: epoch {said.epoch} has not begun; it is {joint.epoch}", side
        )
    if said.epoch < joint.epoch or joint.over:
        if said.epoch == joint.epoch and row in TABLE and said.state in (CLOSING, CLOSED):
            return _moved(joint, side, said.state), ()
        raise StaleEpoch(f"{said.state.label} of epoch {said.epoch}: that is over")
    if row not in TABLE or TABLE[row] not in (None, other.live):
        raise IllegalTransition(_accusation(joint, side, said), side)
    tell = Tell(_other(side), joint.epoch, said.state, said.details)
    ends = (EndEpoch(joint.epoch),) if said.state is CLOSED else ()
    return _moved(joint, side, said.state), (*ends, tell)


def _died(joint: Joint, side: Side, died: Died) -> Outcome:
    if joint.end(side).state is UNKNOWN:
        return joint, ()
    to, state = _other(side), CLOSED if died.returns else UNKNOWN
    effects: list[Effect] = [] if joint.over else [EndEpoch(joint.epoch)]
    heeds = joint.end(to).state is not UNKNOWN and (joint.epoch > 0 or to is FRONT)
    if heeds and not (joint.over and died.returns):
        effects.append(Tell(to, joint.epoch, state, died.reason))
    return _moved(joint, side, state), tuple(effects)


def _pair(joint: Joint, pair: Pair) -> Outcome:
    if pair.epoch <= joint.epoch:
        raise IllegalTransition(
            f"the bus's fault: epoch {pair.epoch} cannot follow {joint.epoch}", BUS
        )
    if UNKNOWN in (joint.front.state, joint.back.state):
        raise IllegalTransition("the bus's fault: a side that is gone for good is paired", BUS)
    effects: list[Effect] = []
    if not joint.over:
        effects.append(EndEpoch(joint.epoch))
        effects += [Tell(to, joint.epoch, CLOSED, "replaced") for to in (FRONT, BACK)]
    effects += [Tell(to, pair.epoch, INITIALISING) for to in (FRONT, BACK)]
    fresh = End(INITIALISING, INITIALISING)
    return Joint(pair.epoch, fresh, fresh), tuple(effects)


def _other(side: Side) -> Side:
    return BACK if side is FRONT else FRONT


def _moved(joint: Joint, side: Side, state: XenbusState) -> Joint:
    live = joint.end(side).live if state is CLOSING else state
    end = End(state, live)
    return replace(joint, front=end) if side is FRONT else replace(joint, back=end)


def _accusation(joint: Joint, side: Side, said: Say) -> str:
    own, other = joint.end(side), joint.end(_other(side))
    allowed = [
        new.label
        for (whose, old, new), needs in TABLE.items()
        if (whose, old) == (side, own.state) and needs in (None, other.live)
    ]
    return (
        f"the {side.value}'s fault: {own.state.label} -> {said.state.label} "
        f"in epoch {joint.epoch}, while the {_other(side).value} is {other.state.label}; "
        f"allowed is {' or '.join(allowed) or 'nothing'}"
    )


def mermaid() -> str:
    """`TABLE` as a Mermaid state diagram: a label is the state that the other must be in."""
    lines = ["stateDiagram-v2"]
    for side in (FRONT, BACK):
        prefix = side.name.lower()
        rows = [(old, new, needs) for (who, old, new), needs in TABLE.items() if who is side]
        lines.append(f'    state "{side.value}" as {prefix} {{')
        lines.append(f"        [*] --> {prefix}_{INITIALISING.label}")
        names = [state.label for state in sorted({state for row in rows for state in row[:2]})]
        lines += [f'        state "{name}" as {prefix}_{name}' for name in names]
        for old, new, needs in rows:
            label = "" if needs is None else f" : {_other(side).value} {needs.label}"
            lines.append(f"        {prefix}_{old.label} --> {prefix}_{new.label}{label}")
        lines.append(f"        {prefix}_{CLOSED.label} --> [*]")
        lines.append("    }")
    return "\n".join(lines) + "\n"


# --- two ways to watch a device -------------------------------------------------------------------


class Action(Enum):
    """What who watches a device does about it."""

    NOTHING = "nothing"
    PROBE = "there is a device: read about it, and serve it"
    REMOVE = "the device is gone: let go of it"
    REPLACE = "it is another one: remove, then probe"


@dataclass(frozen=True, slots=True)
class Shown:
    """What a device's directory shows at one moment to who reads it; it knows no epoch."""

    state: XenbusState
    backend: int


@dataclass(slots=True)
class LevelObserver:
    """The classic face: a watch says only that something changed; what is there now is all to see.

    After xenbus_dev_changed and xenbus_switch_state of Linux, drivers/xen/xenbus. To look and to
    act are two steps, and the store may change between. ``checks_reset``: as of commit
    e2dcf9065536 (2026), which takes a state that is back at Initialising for a new device, unless
    the old one had not left Initialising either and the back end's domid is the same.
    """

    checks_reset: bool = False
    own: XenbusState | None = None  # of the device that it knows; None: it knows none
    backend: int = -1

    def look(self, shown: Shown | None) -> Action:
        """A watch has fired, and this (None: no such device) was read."""
        if self.own is None:
            new = shown is not None and shown.state is INITIALISING
            return Action.PROBE if new else Action.NOTHING
        if shown is None:
            return Action.REMOVE
        return Action.REPLACE if self._reset(shown) else Action.NOTHING

    def act(self, action: Action, shown: Shown | None) -> XenbusState | None:
        """Do it, while ``shown`` is there; returns what it writes as the state, if that exists."""
        if action is Action.NOTHING:
            return None
        wrote = CLOSED if action is Action.REMOVE and not self.checks_reset else None
        self.own = None
        if action is not Action.REMOVE and shown is not None and shown.state is INITIALISING:
            self.own, self.backend = INITIALISING, shown.backend
        return wrote

    def switch(self, shown: Shown | None, state: XenbusState) -> XenbusState | None:
        """The driver goes on to ``state``; returns what it writes, if there is still a state."""
        if self.own is None or shown is None:
            return None
        if self.checks_reset and shown.state is INITIALISING is not self.own:
            return None
        self.own = state
        return state

    def _reset(self, shown: Shown) -> bool:
        moved = shown.state is not self.own or shown.backend != self.backend
        return self.checks_reset and shown.state is INITIALISING and moved


@dataclass(slots=True)
class RevisionObserver:
    """The lossless face: every change after a revision, in order, and each with its epoch.

    ``epoch`` is that of the device that it knows, 0 if none; it names it in all that it says. A
    change that is delivered again, as after a reconnect, is known by its revision.
    """

    revision: int = 0
    epoch: int = 0

    def take(self, revision: int, told: Tell) -> Action:
        """The next change of the device's other side."""
        if revision <= self.revision:
            return Action.NOTHING
        self.revision = revision
        if told.state in (CLOSED, UNKNOWN):
            if told.epoch < self.epoch or not self.epoch:
                return Action.NOTHING
            self.epoch = 0
            return Action.REMOVE
        if told.epoch <= self.epoch:
            return Action.NOTHING
        action = Action.REPLACE if self.epoch else Action.PROBE
        self.epoch = told.epoch
        return action
