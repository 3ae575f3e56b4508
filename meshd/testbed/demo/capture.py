"""tcpdump on the underlay's bridge: every frame between nodes passes there."""

import time
from pathlib import Path

from meshd.testbed import process
from meshd.testbed.demo.pcap import VXLAN_PORT, BadCapture, Frames, parse_pcap
from meshd.testbed.process import Place
from meshd.testbed.testbed import Testbed
from meshd.testbed.underlay import BRIDGE

_NAME = "capture"
_SNAPLEN = 160  # bytes: both headers
_FILTER = f"udp port {VXLAN_PORT} or (ip[6:2] & 0x3fff != 0)"


class Capture:
    """Runs from its making until `stop`; can be read while it runs."""

    def __init__(self, bed: Testbed, file: Path) -> None:
        self._bed = bed
        self._file = file.resolve()
        argv = ["tcpdump", "-i", BRIDGE, "-n", "-U", "--immediate-mode", "-Z", "root", "-s", str(_SNAPLEN)]
        self._record = process.start(
            _NAME,
            [*argv, "-w", str(self._file), _FILTER],
            Place(bed.layout.switch, bed.cgroups / "switch"),
            records=bed.layout.processes,
            log=bed.layout.log(_NAME),
        )
        process.wait_ready(self._record, self._began, log=bed.layout.log(_NAME), deadline_s=5.0)

    def _began(self) -> bool:
        return self._file.exists() and self._file.stat().st_size >= 24

    def frames(self, *, deadline_s: float = 2.0) -> Frames:
        """What was captured so far, as soon as tcpdump has written all of it: the file no longer grows."""
        end, size = time.monotonic() + deadline_s, -1
        while size != (size := self._file.stat().st_size) and time.monotonic() < end:
            time.sleep(0.1)
        try:
            return parse_pcap(self._file.read_bytes())
        except BadCapture as error:
            raise process.StartError(f"the capture {self._file} cannot be read: {error}") from error

    def stop(self) -> None:
        process.stop(self._record, self._bed.layout.processes, grace_s=3.0)
