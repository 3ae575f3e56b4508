"""A pair that follows its files: read again when they change, the old one kept while the new one is no good."""

import logging
import threading
from pathlib import Path

from certs.names import CertsError
from certs.pair import Pair, load_pair

logger = logging.getLogger(__name__)

Signature = tuple[int, int, int]


def signature_of(path: Path) -> Signature:
    """What is another one when the file is, or any symlink on the way to it; a missing file has one, too."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0)
    return (status.st_ino, status.st_ctime_ns, status.st_size)


class LivePair:
    """Certificate, key and CAs of a TLS end. `problem` says why the files are not what is used, empty if they are.

    Whoever needs the pair calls `refresh` first: looking costs three stat calls, and no watcher can miss a change.
    May be called from any thread. The constructor raises CertsError.
    """

    def __init__(self, certificate: Path, key: Path, authorities: Path) -> None:
        self._files = certificate, key, authorities
        self._lock = threading.Lock()
        self._signature = self._sign()
        self.pair: Pair = load_pair(*self._files)
        self.problem = ""

    def refresh(self) -> bool:
        """Takes over files that have changed and belong together; whether the pair is another one now."""
        with self._lock:
            signature = self._sign()
            if signature == self._signature and not self.problem:
                return False
            try:
                pair = load_pair(*self._files)
            except CertsError as error:
                self._note(str(error))
                return False
            self._signature = signature  # of before the files were read: a change meanwhile is seen next time
            changed, self.pair, self.problem = pair != self.pair, pair, ""
            if changed:
                logger.info("certificate reloaded", extra={"certificate": self._files[0]})
            return changed

    def _note(self, problem: str) -> None:
        if problem != self.problem:
            logger.error("certificate not reloaded, the old one is kept", extra={"reason": problem})
        self.problem = problem

    def _sign(self) -> tuple[Signature, ...]:
        return tuple(map(signature_of, self._files))
