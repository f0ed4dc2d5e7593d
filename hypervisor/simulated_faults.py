"""What may go wrong with a domain in a simulated machine, beside what may with any actor.

    kind           opportunity                        what happens
    crash_domain   its program takes a step, makes a  SIGKILL at that point
                   hypercall, serves a request, or
                   signals: before each, and after
    hang_domain    the same                           SIGSTOP at that point
    slow_start     it is to start                     that takes up to `max_delay` virtual seconds
    lose_signal    it signals an event channel        no wake-up comes of it
    delay_signal   the same                           it comes up to `max_delay` later
    revoke         "machine" makes a hypercall, or    `Machine.revoke` of a device that it uses
                   signals

An opportunity belongs to the name of the domain, of a signal to that which sends; the process that
makes the machine is "machine", and never crashes. They are asked for by name, like others, or all
at once: ``Faults(DOMAIN_FAULTS)``.
"""

from __future__ import annotations

from typing import Final

from actors import declare

CRASH_DOMAIN: Final = "crash_domain"
HANG_DOMAIN: Final = "hang_domain"
SLOW_START: Final = "slow_start"
LOSE_SIGNAL: Final = "lose_signal"
DELAY_SIGNAL: Final = "delay_signal"
REVOKE: Final = "revoke"

DOMAIN_FAULTS: Final = (CRASH_DOMAIN, HANG_DOMAIN, SLOW_START, LOSE_SIGNAL, DELAY_SIGNAL, REVOKE)

declare(*DOMAIN_FAULTS)
