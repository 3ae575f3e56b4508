"""Certificates change under a running proxy: new connections see the new ones, open streams do not notice."""

import ssl
from datetime import UTC, datetime
from pathlib import Path

import grpc
import grpc.aio
import pytest

from certs.authority import init_ca
from certs.leaves import issue
from certs.names import Leaf
from tests.support.etcd import Etcd
from tests.support.proxy import Proxy, Reader, reader

pytestmark = pytest.mark.etcd

STATE, STATE_END = b"cilium/state/", b"cilium/state0"


def served_certificate(proxy: Proxy) -> str:
    host, port = proxy.address.split(":")
    return ssl.get_server_certificate((host, int(port)), timeout=10)


async def test_a_new_server_certificate_is_served_and_streams_live_on(etcd: Etcd, proxy: Proxy) -> None:
    remote = proxy.certificate("remote-c2")
    async with reader(proxy, remote) as reading, reading.watch(STATE, STATE_END) as watch:
        assert served_certificate(proxy) == (proxy.server / "tls.crt").read_text()
        proxy.certificate("server-c1", addresses=["127.0.0.1"])
        assert served_certificate(proxy) == (proxy.server / "tls.crt").read_text()
        revision = etcd.put("cilium/state/a", "1")
        assert [event.kv.mod_revision for event in (await watch.read()).events] == [revision]
        async with reader(proxy, remote) as again:
            assert (await again.range(STATE, STATE_END)).count == 1
    assert proxy.log.read_text().count("certificate reloaded") == 1


async def test_a_second_ca_is_believed_once_it_stands_in_the_bundle(tmp_path: Path, proxy: Proxy) -> None:
    now = datetime.now(UTC)
    next_ca = init_ca(tmp_path / "next", now=now)
    newcomer = issue(next_ca, Leaf.parse("remote-c2"), tmp_path / "next", now=now)
    bundle = tmp_path / "proxy/certs/ca/ca.crt"
    own_ca = tmp_path / "own.crt"
    own_ca.write_bytes(bundle.read_bytes())
    async with proxy.channel(newcomer, ca=own_ca) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await Reader(channel, patient=False).range(STATE, STATE_END)
    bundle.write_bytes(bundle.read_bytes() + next_ca.bundle)
    async with proxy.channel(newcomer, ca=own_ca) as channel:
        await Reader(channel).range(STATE, STATE_END)
    async with reader(proxy, proxy.certificate("remote-c3")) as reading:  # the first CA is still believed
        await reading.range(STATE, STATE_END)


def test_a_pair_that_does_not_match_is_named_and_the_old_one_served(proxy: Proxy) -> None:
    served = served_certificate(proxy)
    key = proxy.server / "tls.key"
    own_key = key.read_bytes()
    key.write_bytes((proxy.certificate("remote-c2") / "tls.key").read_bytes())
    assert served_certificate(proxy) == served
    status = proxy.await_status(lambda status: bool(status["tls"]["problem"]))
    assert "is not the key of" in status["tls"]["problem"]
    key.write_bytes(own_key)
    assert served_certificate(proxy) == served
    assert proxy.status()["tls"]["problem"] == ""
