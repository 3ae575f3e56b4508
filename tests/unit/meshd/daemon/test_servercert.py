"""The certificate of a real TLS server on loopback, as it is read and told of."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from certs.authority import init_ca
from certs.leaves import issue
from certs.names import Leaf, server_name
from meshd.daemon.remotefile import RemoteFile, parse_remote_file
from meshd.daemon.servercert import NoCertificate, describe_certificate, read_server_certificate

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Certificates by who has them; `stranger` is a server of another mesh."""
    ours, others = tmp_path_factory.mktemp("ours"), tmp_path_factory.mktemp("others")
    mesh, stranger = init_ca(ours, now=NOW), init_ca(others, now=NOW)
    return {
        "server": issue(mesh, Leaf.parse("server-cluster2"), ours, now=NOW, addresses=["127.0.0.1"]),
        "reader": issue(mesh, Leaf.parse("remote-cluster1"), ours, now=NOW),
        "stranger": issue(stranger, Leaf.parse("server-cluster2"), others, now=NOW),
    }


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a server that shows this certificate to one client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    context.set_alpn_protocols(["h2"])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=_answer, args=(listener, context))
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            thread.join()


def _answer(listener: socket.socket, context: ssl.SSLContext) -> None:
    with suppress(OSError), listener.accept()[0] as plain, context.wrap_socket(plain, server_side=True) as secured:
        secured.recv(1)


def file(folders: dict[str, Path], target: str) -> RemoteFile:
    reader = folders["reader"]
    lines = [f"endpoints: ['https://{target}']", f"trusted-ca-file: {reader / 'ca.crt'}"]
    lines += [f"cert-file: {reader / 'tls.crt'}", f"key-file: {reader / 'tls.key'}"]
    return parse_remote_file("cluster2", "\n".join(lines), folder=reader)


async def test_names_and_end_of_a_servers_certificate_are_told(folders: dict[str, Path]) -> None:
    with serving(folders["server"]) as target:
        found = await read_server_certificate(target, file(folders, target))
    assert server_name("cluster2") in found.names
    assert not found.by_wildcard
    assert found.days_left() in (89, 90)


def test_a_wildcard_is_told_of_as_any_server_of_the_mesh_could_show_it() -> None:
    """As Cilium's certificates have it; our own CA issues none."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "clustermesh")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + timedelta(days=3))
    wildcard = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("*.mesh.cilium.io")]), critical=False)
    der = wildcard.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    assert describe_certificate(der, server_name("cluster2")).by_wildcard


async def test_a_server_of_another_mesh_is_not_believed(folders: dict[str, Path]) -> None:
    with serving(folders["stranger"]) as target:
        remote = file(folders, target)
        with pytest.raises(NoCertificate, match="certificate verify failed"):
            await read_server_certificate(target, remote)


async def test_nobody_there_is_no_certificate(folders: dict[str, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = f"127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(NoCertificate, match="refused"):
        await read_server_certificate(target, file(folders, target))


def test_what_is_none_is_refused() -> None:
    with pytest.raises(NoCertificate):
        describe_certificate(b"?", "cluster2.mesh.cilium.io")
