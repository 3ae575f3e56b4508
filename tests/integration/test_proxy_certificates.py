"""Certificates of both sides change, end, or were made by a clock that is off, while a reader watches."""

import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from certs.authority import init_ca, load_ca
from certs.checks import Fault
from certs.files import Files
from certs.leaves import issue
from certs.names import Leaf
from certs.probe import probe
from certs.rotation import Step, rotate_ca, rotate_leaf
from tests.support.etcd import Etcd
from tests.support.proxy import Proxy, Reader
from tests.support.waiting import until

pytestmark = pytest.mark.etcd

STATE, STATE_END = b"cilium/state/", b"cilium/state0"
REMOTE, SERVER = Leaf.parse("remote-c2"), Leaf.parse("server-c1")


@asynccontextmanager
async def reading(proxy: Proxy, folder: Path) -> AsyncIterator[Reader]:
    """A reader that believes what stands beside its certificate, as a daemon does."""
    async with proxy.channel(folder, ca=folder / "ca.crt") as channel:
        yield Reader(channel)


def faults(proxy: Proxy, folder: Path, *, name: str = "c1.mesh.cilium.io") -> list[Fault]:
    host, port = proxy.address.split(":")
    now = datetime.now(UTC)
    return [one.fault for one in probe(host, int(port), Files.of(folder), name=name, now=now).findings]


async def test_the_ca_and_all_leaves_are_rotated_while_a_reader_watches(
    tmp_path: Path, etcd: Etcd, proxy: Proxy
) -> None:
    remote = proxy.certificate("remote-c2")
    heard: list[int] = []
    wanted: list[int] = []
    async with reading(proxy, remote) as first, first.watch(STATE, STATE_END) as watch:
        for step in Step:
            before = shutil.copytree(remote, tmp_path / step)
            rotate_ca(proxy.certs, [proxy.certs], step, now=datetime.now(UTC))
            wanted.append(etcd.put("cilium/state/a", step))
            for folder in (before, remote):  # whoever has the new files, and whoever does not have them yet
                assert faults(proxy, folder) == []
                async with (
                    reading(proxy, folder) as newcomer,
                    newcomer.watch(STATE, STATE_END, start_revision=1) as again,
                ):
                    await again.read_until(wanted[-1])
            heard += [event.kv.mod_revision for answer in await watch.read_until(wanted[-1]) for event in answer.events]
        assert heard == wanted
        assert faults(proxy, tmp_path / Step.PREPARE) == [Fault.UNKNOWN_CA, Fault.REFUSED]  # of the old CA alone
        await first.range(STATE)  # the oldest connection lives on
    assert "Traceback" not in proxy.log.read_text()


async def test_both_leaves_are_rotated_while_a_reader_watches(etcd: Etcd, proxy: Proxy) -> None:
    remote = proxy.certificate("remote-c2")
    authority = load_ca(proxy.certs)
    async with reading(proxy, remote) as first, first.watch(STATE, STATE_END) as watch:
        for leaf in (SERVER, REMOTE, SERVER, REMOTE):
            old = (proxy.certs / leaf.folder / "tls.crt").read_bytes()
            rotate_leaf(authority, leaf, proxy.certs, now=datetime.now(UTC))
            assert (proxy.certs / leaf.folder / "tls.crt").read_bytes() != old
            revision = etcd.put("cilium/state/a", leaf.common_name)
            assert [event.kv.mod_revision for event in (await watch.read()).events] == [revision]
            async with reading(proxy, remote) as newcomer:
                assert (await newcomer.range(STATE, STATE_END)).header.revision == revision
    assert faults(proxy, remote) == []


@pytest.mark.parametrize("skew", [timedelta(hours=1), timedelta(hours=-1)])
async def test_an_issuer_whose_clock_is_an_hour_off(proxy: Proxy, skew: timedelta) -> None:
    remote = proxy.certificate("remote-c2", age=skew)
    proxy.certificate("server-c1", addresses=["127.0.0.1"], age=skew)
    assert faults(proxy, remote) == []
    async with reading(proxy, remote) as newcomer:
        await newcomer.range(STATE)


def test_the_probe_says_why_a_real_proxy_refuses(tmp_path: Path, proxy: Proxy) -> None:
    now = datetime.now(UTC)
    stranger = issue(init_ca(tmp_path / "other", now=now), REMOTE, tmp_path / "other", now=now)
    shutil.copy(proxy.certs / "ca/ca.crt", stranger / "ca.crt")
    assert faults(proxy, stranger) == [Fault.UNKNOWN_CA, Fault.REFUSED]
    assert faults(proxy, proxy.certificate("remote-c3", age=timedelta(days=91))) == [Fault.EXPIRED, Fault.REFUSED]
    early = proxy.certificate("remote-c4", age=timedelta(days=-3))
    assert faults(proxy, early) == [Fault.NOT_YET_VALID, Fault.REFUSED]
    assert faults(proxy, proxy.server) == [Fault.WRONG_USAGE, Fault.REFUSED]
    assert faults(proxy, proxy.certificate("remote-c2"), name="c2.mesh.cilium.io") == [Fault.MISSING_NAME]


def test_files_that_will_not_do_are_named_and_shut_nobody_out(proxy: Proxy) -> None:
    remote, (certificate, key, bundle) = (
        proxy.certificate("remote-c2"),
        (proxy.certs / name for name in ("server/tls.crt", "server/tls.key", "ca/ca.crt")),
    )
    good = certificate.read_bytes(), key.read_bytes()
    command = ["openssl", "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-subj=/CN=weak", "-days=30"]
    subprocess.run([*command, "-out", certificate, "-keyout", key], check=True, capture_output=True)
    bundle.write_bytes("# für alle\n".encode("latin-1") + bundle.read_bytes())
    assert faults(proxy, remote) == []
    assert "does not take" in proxy.status()["tls"]["problem"]
    certificate.write_bytes(good[0])
    key.write_bytes(good[1])
    assert faults(proxy, remote) == []
    assert proxy.status()["tls"]["problem"] == ""
    for name, file in (("tls.crt", certificate), ("tls.key", key)):
        file.write_bytes((remote / name).read_bytes())
    assert faults(proxy, remote) == [Fault.WRONG_USAGE, Fault.MISSING_NAME]
    assert "may not be used as a server" in proxy.status()["tls"]["problem"]
    log = proxy.log.read_text()
    assert log.count("readers will refuse this proxy's certificate") == 1
    assert "Traceback" not in log


async def test_hangup_looks_at_the_files_and_ends_nothing(etcd: Etcd, proxy: Proxy) -> None:
    async with reading(proxy, proxy.certificate("remote-c2")) as first, first.watch(STATE, STATE_END) as watch:
        proxy.certificate("server-c1", addresses=["127.0.0.1"])
        os.kill(proxy.pid, signal.SIGHUP)
        until(lambda: "certificate reloaded" in proxy.log.read_text(), proxy.log.read_text)
        revision = etcd.put("cilium/state/a", "1")
        assert [event.kv.mod_revision for event in (await watch.read()).events] == [revision]


def test_the_probe_says_why_we_refuse_a_real_proxy(tmp_path: Path, proxy: Proxy) -> None:
    remote = proxy.certificate("remote-c2")
    proxy.certificate("server-c1", addresses=["127.0.0.1"], age=timedelta(days=91))
    assert faults(proxy, remote) == [Fault.EXPIRED]
    assert proxy.status()["tls"]["days_left"] == -2
    proxy.certificate("server-c1", addresses=["127.0.0.1"])
    assert proxy.status()["tls"]["days_left"] == 89
    assert faults(proxy, remote) == []
    other = init_ca(tmp_path / "other", now=datetime.now(UTC))
    (remote / "ca.crt").write_bytes(other.bundle)
    assert faults(proxy, remote) == [Fault.UNKNOWN_CA, Fault.UNKNOWN_CA]  # neither believes the other's issuer
