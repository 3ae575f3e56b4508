"""Runs the load program inside a pod, as `meshd testbed exec` would."""

import subprocess
import sys
import time
from pathlib import Path

from meshd.testbed.demo import load
from meshd.testbed.demo.results import Load, parse
from meshd.testbed.process import Place

PROGRAM = load.__file__
DEADLINE_S = 60.0


class ClientError(Exception):
    """The load program did not end as it should: what it said."""


class Stream:
    """A load that is running."""

    def __init__(self, place: Place, host: str, port: int, options: list[str], output: Path) -> None:
        self._output = output
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-u", PROGRAM, host, str(port), *options],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.PIPE,
                preexec_fn=place.enter,
            )

    def wait_lines(self, count: int, *, deadline_s: float = 10.0) -> None:
        """Returns when so many answers were written: the load flows. Raises ClientError."""
        end = time.monotonic() + deadline_s
        while self._output.read_bytes().count(b"\n") < count:
            if self._process.poll() not in (None, 0) or time.monotonic() > end:
                self.stop()
                raise ClientError(f"the load did not begin to flow within {deadline_s:.0f} s")
            time.sleep(0.02)

    def finish(self) -> Load:
        """Waits for its end. Raises ClientError."""
        try:
            _, errors = self._process.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired as error:
            self.stop()
            raise ClientError(f"the load program did not end in {DEADLINE_S:.0f} s") from error
        if self._process.returncode:
            raise ClientError(f"the load program failed: {errors.decode(errors='replace').strip()[-500:]}")
        return parse(self._output.read_bytes().splitlines())

    def stop(self) -> None:
        """Ends it at once; harmless when it has ended."""
        self._process.kill()
        self._process.communicate()
