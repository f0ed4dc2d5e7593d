"""Linux's sound driver records from a microphone of ours: isochronous transfers, by both ways."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guest.booted import linux
from tests.guest.machine import HOST
from tests.guest.microphone import SAMPLES, MicrophoneDevice
from tests.usb.helpers import exporting_here

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]

PACKETS = 500  # half a second


@pytest.mark.parametrize("way", ["USB/IP", "usbredir"])
def test_linux_records_from_a_microphone(way: str, tmp_path: Path) -> None:
    with exporting_here([["microphone"]], driver=MicrophoneDevice) as served:
        door = f"socket,id=usb,host=127.0.0.1,port={served.redir_port}"
        devices = ("-device", "nec-usb-xhci", "-chardev", door, "-device", "usb-redir,chardev=usb")
        modules = ("snd_usb_audio", "snd_pcm_oss")
        with linux(tmp_path, *(devices if way == "usbredir" else ()), modules=modules) as guest:
            if way == "USB/IP":
                guest.run(f"usbip --tcp-port {served.port} attach -r {HOST} -b 1-1")
            guest.run("await '[ -c /dev/dsp ]'")
            # What /dev/dsp has without being asked for anything else: 8000 samples of 8 bits.
            shown = guest.run(f"head -c {SAMPLES * PACKETS} /dev/dsp | xxd -p -c {SAMPLES}")
    heard = [bytes(sample ^ 0x80 for sample in bytes.fromhex(line)) for line in shown.split()]
    assert len(heard) == PACKETS
    for packet in heard:  # one that QEMU has dropped since the guest was slow is missing as a whole
        assert packet[0] % SAMPLES == 0
        assert packet == bytes(range(packet[0], packet[0] + SAMPLES))
    assert len(set(heard)) > 1
