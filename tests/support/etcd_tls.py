"""A real etcd that speaks mutual TLS only, as that of most clusters does."""

import json
import ssl
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import grpc

from certs.authority import Authority, init_ca
from certs.leaves import issue
from certs.names import Kind, Leaf
from tests.support.etcd import Etcd


class TlsEtcd(Etcd):
    """`settings` are those of an agent or a proxy that reach it. `trust` makes it believe another CA's clients."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._own = init_ca(directory / "own", now=datetime.now(UTC))
        self._server = self._issue(self._own, Kind.SERVER, "server")
        self.client = self._issue(self._own, Kind.ADMIN, "client")
        self.trust(self._own)

    @property
    def url(self) -> str:
        return f"https://{self.address}"

    @property
    def settings(self) -> dict[str, str]:
        files = {"etcd_cert": self.client / "tls.crt", "etcd_key": self.client / "tls.key"}
        return {"etcd": self.url, "etcd_ca": str(self._server / "ca.crt")} | {k: str(v) for k, v in files.items()}

    def trust(self, authority: Authority) -> None:
        """Clients of this CA, from the next start on; ours gets a certificate of it in the place of its old one."""
        self._issue(authority, Kind.ADMIN, "client")
        believed = self.directory / "clients.crt"
        believed.write_bytes(authority.bundle)
        server = {"cert-file": self._server / "tls.crt", "key-file": self._server / "tls.key"}
        self.options = [f"--{name}={file}" for name, file in server.items()]
        self.options += [f"--trusted-ca-file={believed}", "--client-cert-auth"]

    def _issue(self, authority: Authority, kind: Kind, folder: str) -> Path:
        addresses = ["127.0.0.1"] if kind is Kind.SERVER else []
        return issue(authority, Leaf(kind, "c1"), self.directory / folder, now=datetime.now(UTC), addresses=addresses)

    def _open_channel(self) -> grpc.Channel:
        if self._channel is None:
            files = [self._server / "ca.crt", self.client / "tls.key", self.client / "tls.crt"]
            credentials = grpc.ssl_channel_credentials(*(file.read_bytes() for file in files))
            options = [("grpc.use_local_subchannel_pool", 1)]
            self._channel = grpc.secure_channel(self.address, credentials, options=options)
        return self._channel

    def _is_healthy(self) -> bool:
        context = ssl.create_default_context(cafile=str(self._server / "ca.crt"))
        context.load_cert_chain(self.client / "tls.crt", self.client / "tls.key")
        with urllib.request.urlopen(f"{self.url}/health", timeout=1, context=context) as answer:  # noqa: S310
            return str(json.load(answer)["health"]) == "true"
