"""Supervised, message-passing actors on pykka. Knows nothing of domains or drivers.

class Greet(Message):
    name: str

class Greeter(Actor):
    def on_receive(self, message: Message) -> str:
        return f"Hello, {message.name}"

with System() as system:
    print(system.start(Greeter).ask(Greet("you")))
"""

from actors.actor import Actor
from actors.adopted import Adopted, adopted, pykka_ref
from actors.child_spec import BRUTAL_KILL, INFINITY, Backoff, ChildSpec
from actors.choices import Choices
from actors.codec import Packet, decode, encode
from actors.dead_letters import DeadLetters
from actors.errors import (
    ActorDead,
    ActorError,
    AskTimeout,
    ChildExists,
    Deadlock,
    MailboxFull,
    MessageError,
    NameTaken,
    NoSuchChild,
    NotSettled,
    RemoteActorError,
    RestartIntensityExceeded,
    StartFailed,
    StopTimeout,
    TooDeep,
    TooLarge,
    TooManyChildren,
    UnknownKind,
    UnknownRef,
    WouldBlock,
    WrongType,
)
from actors.explore import Failure, Options, explore, replay
from actors.faults import FAULT_KINDS, Faults, InjectedCrash, declare
from actors.fd import Fd
from actors.future import Future
from actors.message import Message, prepare_messages
from actors.ref import NamedRef, Ref
from actors.reply import Reply
from actors.restart import Drop, Escalate, Flags, Restart, Window, decide, scope
from actors.runtime import Executor, Lock, Readable, Runtime
from actors.scheduler import Scheduler
from actors.signals import DeadLetter, Down, Exit, ExitReason, Shutdown, Started
from actors.simulated_process import SimulatedProcess
from actors.statistics import Statistics
from actors.supervision import Supervision
from actors.supervisor import (
    AwaitChildren,
    ChildStatus,
    CountChildren,
    DeleteChild,
    GetChildSpec,
    RestartChild,
    StartChild,
    StartInstance,
    StopChild,
    Supervisor,
    TerminateChild,
    WhichChildren,
)
from actors.system import System
from actors.timers import Timer
from actors.trace import Replay, Trace
from actors.tree import actor_rows, dump, dump_on_signal, picture

__all__ = [
    "BRUTAL_KILL",
    "FAULT_KINDS",
    "INFINITY",
    "Actor",
    "ActorDead",
    "ActorError",
    "Adopted",
    "AskTimeout",
    "AwaitChildren",
    "Backoff",
    "ChildExists",
    "ChildSpec",
    "ChildStatus",
    "Choices",
    "CountChildren",
    "DeadLetter",
    "DeadLetters",
    "Deadlock",
    "DeleteChild",
    "Down",
    "Drop",
    "Escalate",
    "Executor",
    "Exit",
    "ExitReason",
    "Failure",
    "Faults",
    "Fd",
    "Flags",
    "Future",
    "GetChildSpec",
    "InjectedCrash",
    "Lock",
    "MailboxFull",
    "Message",
    "MessageError",
    "NameTaken",
    "NamedRef",
    "NoSuchChild",
    "NotSettled",
    "Options",
    "Packet",
    "Readable",
    "Ref",
    "RemoteActorError",
    "Replay",
    "Reply",
    "Restart",
    "RestartChild",
    "RestartIntensityExceeded",
    "Runtime",
    "Scheduler",
    "Shutdown",
    "SimulatedProcess",
    "StartChild",
    "StartFailed",
    "StartInstance",
    "Started",
    "Statistics",
    "StopChild",
    "StopTimeout",
    "Supervision",
    "Supervisor",
    "System",
    "TerminateChild",
    "Timer",
    "TooDeep",
    "TooLarge",
    "TooManyChildren",
    "Trace",
    "UnknownKind",
    "UnknownRef",
    "WhichChildren",
    "Window",
    "WouldBlock",
    "WrongType",
    "actor_rows",
    "adopted",
    "decide",
    "declare",
    "decode",
    "dump",
    "dump_on_signal",
    "encode",
    "explore",
    "picture",
    "prepare_messages",
    "pykka_ref",
    "replay",
    "scope",
]
