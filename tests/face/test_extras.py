"""Metrics and spans of a running machine, read by the libraries of those who read them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from hypervisor import Machine
from tests.sources import ROOT
from tests.transport.device import Device
from transport import ChannelClosed, FrontEnd, RemoteError, connect
from xenidc import FaceError, metrics, record_spans, serve_metrics

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine() as machine:
        machine.start("device", Device, placement="thread")
        yield machine


@pytest.fixture
def device(machine: Machine) -> FrontEnd:
    return connect(machine, "device", slots=8, buffer_bytes=1 << 14)


def value(families: Any, name: str, **labels: str) -> float:
    (found,) = [
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return float(found)


def fetch(url: str, **headers: str) -> tuple[int, str, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, "", ""


# --- metrics --------------------------------------------------------------------------------------


def test_a_scrape_has_what_channels_and_domains_count(machine: Machine, device: FrontEnd) -> None:
    with device.buffer(100) as buffer:
        for _ in range(3):
            device.call("fill", buffer)
    machine.reboot("device")
    text = generate_latest(metrics(machine, {"disk": device})).decode()
    of = {"channel": "disk", "device": "device"}
    wanted = {
        "requests_total": 3,
        "bytes_total": 300,
        "in_flight": 0,
        "credits": 8,
        "open": 1,
        "request_seconds_count": 3,
    }
    for name, number in wanted.items():
        assert value(prometheus(text), f"xenidc_channel_{name}", **of) == number
    assert value(prometheus(text), "xenidc_domain_restarts_total", domain="device") == 1
    states = {
        sample.labels["xenidc_domain_state"]: sample.value
        for family in prometheus(text)
        for sample in family.samples
        if sample.name == "xenidc_domain_state"
    }
    assert states["running"] == 1
    assert sum(states.values()) == 1


def test_the_buckets_of_the_histogram_grow_up_to_the_count(
    machine: Machine, device: FrontEnd
) -> None:
    for _ in range(20):
        device.call("pid")
    text = generate_latest(metrics(machine, {"disk": device})).decode()
    buckets = [
        (float(sample.labels["le"]), sample.value)
        for family in prometheus(text)
        for sample in family.samples
        if sample.name == "xenidc_channel_request_seconds_bucket"
    ]
    assert [bound for bound, _ in buckets] == sorted(bound for bound, _ in buckets)
    counts = [count for _, count in buckets]
    assert counts == sorted(counts)
    assert counts[-1] == 20


def test_it_is_served_in_either_format(machine: Machine, device: FrontEnd) -> None:
    url = serve_metrics(machine, {"disk": device}, "127.0.0.1:0")
    device.call("pid")
    for parse, accept in ((prometheus, "text/plain"), (openmetrics, OPENMETRICS)):
        status, kind, text = fetch(url, Accept=accept)
        assert status == 200
        assert kind.startswith(accept.partition(";")[0])
        assert value(parse(text), "xenidc_channel_requests_total", channel="disk") == 1


def test_another_path_or_method_is_refused(machine: Machine) -> None:
    url = serve_metrics(machine, {}, "127.0.0.1:0")
    assert fetch(url.replace("/metrics", "/nothing"))[0] == 404
    host, port = url.removeprefix("http://").removesuffix("/metrics").split(":")
    with socket.create_connection((host, int(port))) as peer:
        peer.sendall(b"POST /metrics HTTP/1.1\r\n\r\n")
        assert b"405 Method Not Allowed" in read_all(peer)


def test_who_says_nothing_or_too_much_keeps_nobody_out(machine: Machine) -> None:
    url = serve_metrics(machine, {}, "127.0.0.1:0")
    address = ("127.0.0.1", int(url.split(":")[2].removesuffix("/metrics")))
    silent = [socket.create_connection(address) for _ in range(20)]
    try:
        assert fetch(url)[0] == 200
        with socket.create_connection(address) as loud:
            loud.sendall(b"x" * (17 << 10))
            assert read_all(loud) == b""
    finally:
        for peer in silent:
            peer.close()


def read_all(peer: socket.socket) -> bytes:
    found = b""
    try:
        while data := peer.recv(4096):
            found += data
    except ConnectionResetError:
        pass
    return found


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("9100", "HOST:PORT, not '9100'"),
        (":9100", "HOST:PORT"),
        ("127.0.0.1:http", "HOST:PORT"),
        ("127.0.0.1:99999", "HOST:PORT"),
        ("300.0.0.1:1", "cannot be served at 300.0.0.1:1"),
    ],
)
def test_an_address_that_cannot_be_is_one_error(machine: Machine, address: str, text: str) -> None:
    with pytest.raises(FaceError, match=text):
        serve_metrics(machine, {}, address)


def test_an_address_that_is_taken_is_one_error(machine: Machine) -> None:
    url = serve_metrics(machine, {}, "127.0.0.1:0")
    taken = url.removeprefix("http://").removesuffix("/metrics")
    with pytest.raises(FaceError, match="cannot be served"):
        serve_metrics(machine, {}, taken)


# --- spans ----------------------------------------------------------------------------------------


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> TracerProvider:
    made = TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(SimpleSpanProcessor(exporter))
    return made


def test_each_request_is_a_span(
    machine: Machine, device: FrontEnd, provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    record_spans(machine, {"disk": device}, provider)
    before = time.time_ns()
    device.call(("mirror", 50), send=bytes(100), receive=bytearray(100))
    with pytest.raises(RemoteError):
        device.call(("raise", "no"))
    good, bad = spans(exporter)
    assert (good.name, good.kind, good.parent) == ("mirror", SpanKind.CLIENT, None)
    assert good.attributes is not None
    assert good.attributes["xenidc.channel"] == "disk"
    assert good.attributes["xenidc.device"] == "device"
    assert good.attributes["xenidc.outcome"] == "ok"
    assert good.attributes["xenidc.epoch"] == 1
    assert good.attributes["xenidc.bytes"] == 200
    names = [event.name for event in good.events]
    assert names[0] == "pushed"
    assert sorted(set(names[1:])) == ["pull", "push"]
    slack = 10**9  # the clocks are read one after the other, and the wall's may be set
    assert good.start_time is not None
    assert good.end_time is not None
    times = [before - slack, good.start_time, *(event.timestamp for event in good.events)]
    assert [*times, good.end_time] == sorted([*times, good.end_time])
    assert (bad.name, bad.status.status_code) == ("raise", StatusCode.ERROR)
    assert bad.attributes is not None
    assert bad.attributes["error.type"] == "RemoteError"


def test_spans_end_when_they_are_to(
    machine: Machine, device: FrontEnd, provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    end = record_spans(machine, {"disk": device}, provider)
    end()
    device.call("pid")
    assert spans(exporter) == []


def test_if_one_channel_has_ended_none_is_recorded(
    machine: Machine, device: FrontEnd, provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    closed = connect(machine, "device", slots=8, buffer_bytes=1 << 14)
    closed.close()
    with pytest.raises(ChannelClosed):
        record_spans(machine, {"disk": device, "closed": closed}, provider)
    device.call("pid")
    assert spans(exporter) == []


def test_without_a_provider_it_says_that_spans_would_go_nowhere(
    machine: Machine, device: FrontEnd
) -> None:
    with pytest.raises(FaceError, match="opentelemetry-instrument"):
        record_spans(machine, {"disk": device})


def spans(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    return list(exporter.get_finished_spans())


# --- the command, and without the libraries -------------------------------------------------------

FILE = """\
from xenidc import Topology
topology = Topology("echo")
topology.domain("echo", "tests.face.programs:Echo", placement="thread")
topology.channel("echo", slots=8, buffer_bytes=1 << 14)
topology.workload("tests.face.programs:three", "echo")
"""


def run(tmp_path: Path, before: str, *options: str) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "echo.py"
    path.write_text(FILE)
    control = str(tmp_path / "control.sock")
    arguments = ["run", str(path), "--control", control, *options]
    code = f"{before}\nfrom xenidc.cli import main\nimport sys\nsys.exit(main({arguments!r}))"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_run_makes_spans_by_the_provider_that_is_set(tmp_path: Path) -> None:
    ended = run(
        tmp_path,
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor\n"
        "provider = TracerProvider()\n"
        "provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))\n"
        "trace.set_tracer_provider(provider)",
        "--spans",
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count('"xenidc.outcome": "ok"') == 3


@pytest.mark.parametrize(
    ("library", "options", "extra"),
    [
        ("prometheus_client", ["--metrics", "127.0.0.1:0"], "metrics"),
        ("opentelemetry", ["--spans"], "otel"),
    ],
)
def test_without_its_library_it_says_what_to_install(
    tmp_path: Path, library: str, options: list[str], extra: str
) -> None:
    ended = run(tmp_path, f"import sys\nsys.modules[{library!r}] = None", *options)
    assert ended.returncode == 2
    wanted = f"xenidc: this needs the extra '{extra}': pip install 'xenidc[{extra}]'"
    assert ended.stderr.splitlines()[-1] == wanted


def test_run_says_where_its_metrics_are(tmp_path: Path) -> None:
    ended = run(tmp_path, "", "--metrics", "127.0.0.1:0")
    assert ended.returncode == 0
    assert "metrics: http://127.0.0.1:" in ended.stderr


def test_a_simulated_machine_serves_no_metrics(tmp_path: Path) -> None:
    ended = run(tmp_path, "", "--metrics", "127.0.0.1:0", "--placement", "simulated")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "it has no outside" in ended.stderr
