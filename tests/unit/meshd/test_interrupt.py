"""The end of a command that is interrupted, in a process of its own."""

import subprocess
import sys

# The last thing the interpreter does before it restores the signals is to call these functions.
INTERRUPTED = """
import atexit, os, signal
from meshd import cli

def work(**_):
    raise KeyboardInterrupt

cli.program.main = work
atexit.register(os.kill, os.getpid(), signal.SIGINT)
cli.main()
"""


def test_a_second_interrupt_does_not_change_how_the_first_one_ended() -> None:
    argv = ["env", "--default-signal=INT", sys.executable, "-c", INTERRUPTED]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (130, "meshd: interrupted\n")
