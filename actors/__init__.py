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
from actors.child_spec import ChildSpec
from actors.codec import Packet, decode, encode
from actors.errors import (
    ActorDead,
    ActorError,
    AskTimeout,
    ChildExists,
    MailboxFull,
    MessageError,
    NoSuchChild,
    RemoteActorError,
    RestartIntensityExceeded,
    StartFailed,
    StopTimeout,
    TooDeep,
    TooLarge,
    UnknownKind,
    UnknownRef,
    WrongType,
)
from actors.fd import Fd
from actors.future import Future
from actors.message import Message
from actors.ref import Ref
from actors.reply import Reply
from actors.restart import Drop, Escalate, Restart, Window, decide
from actors.signals import Down, Exit, ExitReason, Shutdown
from actors.supervisor import (
    ChildStatus,
    StartChild,
    StopChild,
    Supervisor,
    WhichChildren,
)
from actors.system import System
from actors.timers import Timer

__all__ = [
    "Actor",
    "ActorDead",
    "ActorError",
    "AskTimeout",
    "ChildExists",
    "ChildSpec",
    "ChildStatus",
    "Down",
    "Drop",
    "Escalate",
    "Exit",
    "ExitReason",
    "Fd",
    "Future",
    "MailboxFull",
    "Message",
    "MessageError",
    "NoSuchChild",
    "Packet",
    "Ref",
    "RemoteActorError",
    "Reply",
    "Restart",
    "RestartIntensityExceeded",
    "Shutdown",
    "StartChild",
    "StartFailed",
    "StopChild",
    "StopTimeout",
    "Supervisor",
    "System",
    "Timer",
    "TooDeep",
    "TooLarge",
    "UnknownKind",
    "UnknownRef",
    "WhichChildren",
    "Window",
    "WrongType",
    "decide",
    "decode",
    "encode",
]
