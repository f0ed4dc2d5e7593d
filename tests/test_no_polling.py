"""Nothing polls: what waits is woken by an event (DESIGN rule 3).

What counts as polling in actors/, hypervisor/, transport/ and xenidc/:

1. sleeping, and every source of periodic wake-ups (threading.Timer, setitimer, alarm, timerfd,
   sched);
2. a wait with a timeout inside a loop: whoever goes round again when it expires looks for something
   that nobody tells him;
3. a timer of an actor (`.after(...)`, `.every(...)`): a handler that arms one again is an interval
   timer too;
4. a socket with a timeout, which is (2) in another dress.

The exceptions are deadlines that a caller asked for. Each is named here with its reason: an entry
that no longer matches anything fails too, so that the list stays as short as it is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.sources import Source, sources

ALLOWED: dict[str, str] = {
    "actors.supervisor.Supervisor._perform": "the backoff that a child's spec asks for",
    "actors.supervisor.Supervisor._end": "the deadline that a child's spec gives its shutdown",
    "actors.threads.Threads.close": "the deadline of the end: it waits for each thread once",
    "actors.threads._Alarm._next": (
        "the clock of the timers of pooled actors: it sleeps until the next one is due, and goes "
        "round when it is told of an earlier one"
    ),
    "hypervisor.process_domain.ProcessDomain._probe": (
        "the watchdog: a deadline for one sign of life that was asked for"
    ),
    "hypervisor.process_domain.ProcessDomain._judge": (
        "the watchdog: one more period for a process that was seen to make progress; bounded"
    ),
    "hypervisor.process_domain.ProcessDomain._serve": (
        "the deadline of a start or an orderly end; the loop goes round for frames, not for time"
    ),
    "hypervisor.hypervisor.Hypervisor._warn": (
        "the watchdog's one deadline for who holds too much revoked memory to let go of it; only "
        "passing the limit again arms another"
    ),
    "hypervisor.hypervisor.Hypervisor._set_timer": (
        "the deadline that a guest asked for by SetTimer: one-shot, for its virtual IRQ TIMER"
    ),
    "hypervisor.simulated_domain.SimulatedDomain._probe": "the watchdog, as above, in virtual time",
    "hypervisor.processes.ProcessPool._start_soon": (
        "the moment for which a process that has just started has the processors for itself, "
        "before the next spare is started; ends when there are enough"
    ),
    "hypervisor.store_watch.Follower.get": (
        "the deadline that the caller gave; the loop goes round when it is woken and what it was "
        "woken for is not for it to see"
    ),
    "transport.endpoint.FrontEndActor.on_receive": (
        "the watchdog: armed when requests are in flight after a time without any"
    ),
    "transport.endpoint.FrontEndActor._prepare": "the watchdog: the deadline of a connection",
    "transport.endpoint.FrontEndActor._overdue": (
        "the watchdog goes on while a back end that lives has not connected"
    ),
    "transport.endpoint.FrontEndActor._tick": (
        "the watchdog goes on while requests are in flight; it never waits for a peer to let go, "
        "but has one that is silent replaced"
    ),
    "transport.frontend.FrontEnd.drain": "the deadline that the caller gave",
    "transport.waiting.Waiting.sleep": "the deadline that the caller of `call` gave",
    "transport.waiting.Waiting._lead": "the deadline that the caller of `call` gave",
    "xenidc.commands._repeat": "the interval that the user of `top` asked for (--every)",
    "xenidc.screen._is_ready": "the same interval, or a key before it has passed",
}
"""Qualified name of a function -> whose deadline it is."""

SLEEPERS = {
    "time.sleep",
    "asyncio.sleep",
    "threading.Timer",
    "signal.setitimer",
    "signal.alarm",
    "signal.pthread_sigtimedwait",
    "os.timerfd_create",
    "sched.scheduler",
    "select.select",
}
WAITS = {
    "wait": 0,
    "join": 0,
    "poll": 0,
    "select": 0,
    "result": 0,
    "acquire": 1,
    "get": 1,
    "communicate": 1,
    "wait_for": 1,
}
"""Methods that take a timeout, and its place among the positional arguments."""
SHARED_NAMES = {"join", "get"}
"""Strings and mappings have these as well: only a number or such a word is a timeout there."""
TIME_WORDS = ("timeout", "left", "deadline", "seconds", "remaining", "interval")

LOOPS = (
    ast.While,
    ast.For,
    ast.AsyncFor,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
)

PROJECT = sources("actors", "hypervisor", "transport", "xenidc")


def findings(source: Source) -> Iterator[tuple[str, str]]:
    """(qualified name of the function, what it does and where) for everything that may poll."""
    imported = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for node in source.tree.body:
        yield from _visit(node, source.name, in_loop=False, imported=imported)


def _visit(
    node: ast.AST, where: str, *, in_loop: bool, imported: dict[str, str]
) -> Iterator[tuple[str, str]]:
    once: ast.AST | None = None
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        where, in_loop = f"{where}.{node.name}", False
    elif isinstance(node, ast.For | ast.AsyncFor):
        once = node.iter  # what it goes over is worked out once
    elif isinstance(node, ast.Call) and (what := _judge(node, imported, in_loop=in_loop)):
        yield where, f"{where}:{node.lineno} {what}"
    inside = in_loop or isinstance(node, LOOPS)
    for child in ast.iter_child_nodes(node):
        yield from _visit(
            child, where, in_loop=in_loop if child is once else inside, imported=imported
        )


def _judge(call: ast.Call, imported: dict[str, str], *, in_loop: bool) -> str | None:
    name = ast.unparse(call.func)
    if (full := imported.get(name, name)) in SLEEPERS and not (
        full == "select.select" and len(call.args) < 4
    ):
        return f"calls {full}"
    method = call.func.attr if isinstance(call.func, ast.Attribute) else name
    if method in ("after", "every"):
        return "arms a timer"
    if method == "settimeout" and not _is_none_or_zero(call.args[0]):
        return "gives a socket a timeout"
    if in_loop and method in WAITS and (timeout := _timeout(call, method)) is not None:
        return f"waits with timeout {ast.unparse(timeout)} in a loop"
    return None


def _timeout(call: ast.Call, method: str) -> ast.expr | None:
    """The timeout that a wait is given; None if there is none, or if it does not wait at all."""
    for keyword in call.keywords:
        if keyword.arg == "timeout":
            return None if _is_none_or_zero(keyword.value) else keyword.value
    # `System.wait` takes the actor first.
    place = 1 if ast.unparse(call.func).endswith("system.wait") else WAITS[method]
    if len(call.args) <= place or _is_none_or_zero(value := call.args[place]):
        return None
    if method in SHARED_NAMES and not _looks_like_time(value, call):
        return None
    return value


def _looks_like_time(value: ast.expr, call: ast.Call) -> bool:
    if isinstance(value, ast.Constant):
        queue_like = not call.args[:-1] or ast.unparse(call.args[0]) == "True"
        return isinstance(value.value, int | float) and queue_like
    return any(word in ast.unparse(value) for word in TIME_WORDS)


def _is_none_or_zero(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and not value.value


def test_nothing_polls() -> None:
    found = [what for source in PROJECT for where, what in findings(source) if where not in ALLOWED]
    assert not found, "\n".join(found)


def test_every_exception_is_still_needed() -> None:
    needed = {where for source in PROJECT for where, _ in findings(source)}
    assert set(ALLOWED) <= needed


@pytest.mark.parametrize(
    "bad",
    [
        "import time\ndef f():\n  time.sleep(1)",
        "from time import sleep as rest\ndef f():\n  rest(1)",
        "import threading\ndef f(g):\n  threading.Timer(1, g).start()",
        "def f(event, peer):\n  while not peer.gone:\n    event.wait(0.1)",
        "def f(event, peer):\n  while not event.wait(timeout=0.1):\n    peer.look()",
        "def f(epoll):\n  for _ in range(9):\n    epoll.poll(1)",
        "def f(threads):\n  for thread in threads:\n    thread.join(1.0)",
        "def f(queue):\n  while True:\n    queue.get(True, 0.5)",
        "def f(lock):\n  while not lock.acquire(timeout=1): pass",
        "def f(futures):\n  return [future.result(1) for future in futures]",
        "import select\ndef f(fds):\n  select.select(fds, [], [], 1)",
        "def f(socket):\n  socket.settimeout(1)",
        "def f(self, refs):\n  for ref in refs:\n    self.system.wait(ref, 1)",
        "class A:\n  def on_receive(self, message):\n    self.after(1, message)",
        "class A:\n  def on_start(self):\n    self.every(1, Tick())",
        "import signal\ndef f():\n  signal.setitimer(signal.ITIMER_REAL, 1, 1)",
    ],
)
def test_a_bad_sample_is_found(bad: str) -> None:
    assert len(list(findings(Source.of("sample", bad)))) == 1


@pytest.mark.parametrize(
    "good",
    [
        "def f(event):\n  event.wait()",
        "def f(event, timeout):\n  return event.wait(timeout)",
        "def f(epoll):\n  while True:\n    epoll.poll()",
        "def f(epoll):\n  while epoll.poll(0): pass",
        "def f(epoll, timeout):\n  for fd, mask in epoll.poll(timeout): print(fd)",
        "def f(names, rows):\n  for row in rows:\n    names.get(row, 1)",
        "def f(rows):\n  for row in rows:\n    print(', '.join(row))",
        "import select\ndef f(fds):\n  select.select(fds, [], [])",
        "def f(self, refs):\n  for ref in refs:\n    self.system.wait(ref)",
        "def f(socket):\n  socket.settimeout(None)",
        "def f(threads):\n  for thread in threads:\n    thread.join()",
    ],
)
def test_waiting_for_an_event_is_not_polling(good: str) -> None:
    assert list(findings(Source.of("sample", good))) == []


def test_a_finding_names_the_function_that_an_exception_would_name() -> None:
    text = "class A:\n  def f(self, event):\n    while True:\n      event.wait(1)"
    ((where, _),) = findings(Source.of("package.module", text))
    assert where == "package.module.A.f"
