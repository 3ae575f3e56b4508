"""The probe against openssl's own server: what each of the two holds against the other."""

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from certs.checks import Fault
from certs.files import Files
from certs.probe import Probe, probe
from tests.support.certificates import DAY, NOW, Forged, forge, write
from tests.support.etcd import Etcd
from tests.support.etcd import etcd as etcd
from tests.support.ports import free_port

NAME = "c1.mesh.cilium.io"
CA = forge("mesh CA", is_ca=True)
STRANGER = forge("other CA", is_ca=True)
SERVER = forge(NAME, CA, usages=["server"], names=[NAME])
CLIENT = forge("remote-c2", CA, usages=["client"])


@contextmanager
def openssl_server(folder: Path, server: Forged, *options: str) -> Iterator[int]:
    """`openssl s_server` that wants a client certificate of CA."""
    write(folder, server, CA)
    port = free_port()
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", "tls.crt", "-key", "tls.key", "-quiet"]
    command += ["-CAfile", "ca.crt", "-Verify", "2", "-verify_return_error", "-alpn", "h2", *options]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.kill()
        process.communicate()


def ask(
    folder: Path, port: int, client: Forged = CLIENT, *, believed: Sequence[Forged] = (CA,), name: str = NAME
) -> Probe:
    """Probes until the server is up; a server that takes us says nothing, so the time it has is short."""
    files = Files.of(write(folder, client, *believed))
    deadline = time.monotonic() + 10
    while True:
        probed = probe("127.0.0.1", port, files, name=name, now=NOW, timeout_s=0.3)
        if time.monotonic() > deadline or all(one.fault is not Fault.UNREACHABLE for one in probed.findings):
            return probed


def faults(probed: Probe) -> list[Fault]:
    return [one.fault for one in probed.findings]


SILENT = [Fault.REFUSED]  # openssl's server speaks no HTTP/2: being let in shows as silence


def test_a_server_that_takes_us(tmp_path: Path) -> None:
    with openssl_server(tmp_path / "server", SERVER) as port:
        probed = ask(tmp_path / "client", port)
    assert faults(probed) == SILENT
    assert "then said nothing" in probed.findings[0].text
    assert probed.peer == f"{NAME} with TLSv1.3"


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize(
    ("client", "own", "said"),
    [
        (forge("remote-c2", STRANGER), Fault.UNKNOWN_CA, "does not believe the CA"),
        (forge("remote-c2", CA, ends=NOW - DAY / 2), Fault.EXPIRED, "has ended"),
        (forge("remote-c2", CA, begins=NOW + DAY), Fault.NOT_YET_VALID, "not yet by its clock"),
        (forge("remote-c2", CA, usages=["server"]), Fault.WRONG_USAGE, "not for clients"),
    ],
    ids=["unknown CA", "expired", "not yet valid", "wrong usage"],
)
def test_why_we_are_refused(tmp_path: Path, client: Forged, own: Fault, said: str, version: str) -> None:
    with openssl_server(tmp_path / "server", SERVER, version) as port:
        probed = ask(tmp_path / "client", port, client)
    assert faults(probed) == [own, Fault.REFUSED]
    assert said in probed.findings[-1].text


@pytest.mark.parametrize(
    ("server", "fault"),
    [
        (forge(NAME, STRANGER, names=[NAME]), Fault.UNKNOWN_CA),
        (forge(NAME, CA, names=[NAME], ends=NOW - DAY / 2), Fault.EXPIRED),
        (forge(NAME, CA, names=[NAME], begins=NOW + DAY), Fault.NOT_YET_VALID),
        (forge(NAME, CA, names=[NAME], usages=["client"]), Fault.WRONG_USAGE),
        (forge(NAME, CA), Fault.MISSING_NAME),
        (forge(NAME, CA, names=["c2.mesh.cilium.io"]), Fault.MISSING_NAME),
    ],
    ids=["unknown CA", "expired", "not yet valid", "wrong usage", "no name", "other name"],
)
def test_why_we_refuse_the_server(tmp_path: Path, server: Forged, fault: Fault) -> None:
    with openssl_server(tmp_path / "server", server) as port:
        probed = ask(tmp_path / "client", port)
    assert faults(probed) == [fault, *SILENT]
    assert f"127.0.0.1:{port}" in probed.findings[0].subject


def test_a_server_whose_ca_is_no_ca(tmp_path: Path) -> None:
    no_ca = forge("mesh CA", is_ca=False)
    with openssl_server(tmp_path / "server", forge(NAME, no_ca, names=[NAME])) as port:
        probed = ask(tmp_path / "client", port, believed=[no_ca, CA])
    assert Fault.NOT_A_CA in faults(probed)


def test_a_server_that_speaks_something_else(tmp_path: Path) -> None:
    with openssl_server(tmp_path / "server", SERVER, "-alpn", "http/1.1") as port:
        other = ask(tmp_path / "client", port)
    assert faults(other) == [Fault.REFUSED]
    assert "does not speak HTTP/2" in other.findings[0].text
    files = Files.of(tmp_path / "client")
    assert faults(probe("127.0.0.1", port, files, name=NAME, now=NOW)) == [Fault.UNREACHABLE]  # it is gone now


def test_etcds_own_port(tmp_path: Path, etcd: Etcd) -> None:
    files = Files.of(write(tmp_path / "client", CLIENT, CA))
    assert faults(probe("127.0.0.1", etcd.port, files, name=NAME, now=NOW)) == [Fault.NO_TLS]


def test_files_that_are_no_pair_are_not_sent_anywhere(tmp_path: Path) -> None:
    files = Files.of(write(tmp_path / "client", CLIENT, CA, key=SERVER))
    probed = probe("127.0.0.1", 1, files, name=NAME, now=NOW)
    assert faults(probed) == [Fault.KEY_MISMATCH]
