"""Programs that look at their own process from inside, and do to it what they are asked to."""

from __future__ import annotations

import array
import itertools
import os
import resource
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from actors import Actor, Message, Packet, decode
from hypervisor import Guest
from transport import BackEnd, BackEndActor, Request

HYPERCALL_SOCKET = 3


class Subject(BackEnd):
    """Every request says what to do; see `on_request`. ``stopped``: a file that `on_stop` makes."""

    idempotent = True

    runner = "tests.hypervisor.domain_programs:SubjectActor"
    guest: Guest

    def on_start(self, stopped: str = "") -> None:
        self._stopped = stopped

    def on_stop(self) -> None:
        if self._stopped:
            Path(self._stopped).touch()

    def on_request(self, request: Request) -> Any:
        match request.body:
            case ["pid"]:
                return os.getpid()
            case ["descriptors"]:
                return descriptors(os.getpid())
            case ["environment"]:
                return dict(os.environ)
            case ["stdin"]:
                return os.read(0, 1)
            case ["affinities"]:
                tasks = os.listdir("/proc/self/task")
                return sorted({cpu for task in tasks for cpu in os.sched_getaffinity(int(task))})
            case ["status", name]:
                return status(name)
            case ["limit", name]:
                return list(resource.getrlimit(getattr(resource, name)))
            case ["interfaces"]:
                return [name for _, name in socket.if_nameindex()]
            case ["ids"]:
                return [os.getuid(), os.getgid()]
            case ["write", number, text]:
                return os.write(number, text)
            case ["print", text]:
                print(text)  # noqa: T201 - how print behaves is the question
                print(text, file=sys.stderr)  # noqa: T201
                return None
            case ["flood", number, text, times]:
                return flood(number, text, times)
            case ["exit", code, text]:
                os.write(2, text)
                os._exit(code)
            case ["signal", number]:
                os.kill(os.getpid(), number)
                threading.Event().wait()
            case ["compute", count]:  # in one C call, which keeps the interpreter's lock
                return sum(range(count))
            case ["hang once", flag]:
                return hang_once(flag)
            case ["close hypercalls"]:
                os.close(HYPERCALL_SOCKET)
                threading.Event().wait()
            case ["raw", payload, times, count]:
                send_raw(payload * times, count)
                threading.Event().wait()
            case ["hypercall", payload]:
                return self.guest.hypercall(decode(Packet(payload)))
        raise ValueError(request.body)


class SubjectActor(BackEndActor):
    """Gives the driver its guest."""

    def __init__(self, guest: Guest, program: type[Subject], args: list[Any]) -> None:
        super().__init__(guest, program, args)
        assert isinstance(self._driver, Subject)
        self._driver.guest = guest


class Leaver(Actor):
    """A program that ends by itself, and well, as soon as somebody connects to it."""

    runner = "tests.hypervisor.domain_programs:Leaver"

    def __init__(self, guest: Guest, program: type, args: list[Any]) -> None:
        super().__init__()
        self._guest = guest

    def on_start(self) -> None:
        self._guest.advertise(self._guest.name)

    def on_receive(self, message: Message) -> None:
        self.exit()


class Flooder(BackEnd):
    """Writes more than any pipe holds before it has started, and when it is to stop."""

    idempotent = True

    def on_start(self) -> None:
        flood(2, b"x" * 99 + b"\n", 20_000)

    def on_stop(self) -> None:
        flood(1, b"y" * 99 + b"\n", 20_000)
        os.write(1, b"the end")


class LiarAtBirth(BackEnd):
    """Sends what no domain may before it has started."""

    idempotent = True

    def on_start(self) -> None:
        send_raw(b"\xc1", 0)


class LiarAtDeath(BackEnd):
    """Sends it when it is told to stop."""

    idempotent = True

    def on_stop(self) -> None:
        send_raw(b"\xc1", 3)


class Starts(BackEnd):
    """Starts so many times, and exits with code 7, after a word, instead of starting once more."""

    idempotent = True

    def on_start(self, flag: str, times: int) -> None:
        if len(os.listdir(flag)) >= times:
            os.write(2, b"no more\n")
            os._exit(7)
        Path(flag, str(os.getpid())).touch()

    def on_request(self, request: Request) -> Any:
        return request.body


def descriptors(pid: int) -> dict[int, str]:
    """What the open descriptors of a process point to; that of the listing itself is left out."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
    return found


def status(name: str) -> str:
    """A line of this thread's /proc/self/status."""
    lines = Path("/proc/thread-self/status").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith(f"{name}:"))


def flood(number: int, text: bytes, times: int) -> None:
    """Write it so often, however long the reader takes."""
    with open(number, "wb", closefd=False) as stream:
        stream.writelines(text for _ in range(times))


def hang_once(flag: str) -> str:
    """Compute for ever in one C call, but for who comes second."""
    try:
        os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "the second"
    sum(itertools.repeat(0))
    return "unreachable"


def send_raw(payload: bytes, count: int) -> None:
    """One packet on the hypercall socket, with so many descriptors beside it."""
    with socket.socket(fileno=os.dup(HYPERCALL_SOCKET)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * count))
        sock.sendmsg([payload], [rights] if count else [])
