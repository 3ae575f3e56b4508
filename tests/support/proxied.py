"""A cluster as the daemons of others see it: a real etcd and a real proxy with mutual TLS, as processes on loopback."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from certs.authority import Authority, init_ca
from certs.leaves import issue
from certs.names import Kind, Leaf
from tests.support.etcd import Etcd
from tests.support.ports import free_port


class ProxiedCluster:
    """etcd and proxy of one cluster. `certs` is the mesh's one CA's folder."""

    def __init__(self, folder: Path, name: str, authority: Authority, certs: Path) -> None:
        self.name, self._folder, self._authority, self._certs = name, folder / name, authority, certs
        self.etcd = Etcd(self._folder / "etcd")
        self.port = free_port()
        self._server = issue(
            authority, Leaf(Kind.SERVER, name), self._folder / "certs", now=datetime.now(UTC), addresses=["127.0.0.1"]
        )
        self._proxy: subprocess.Popen[bytes] | None = None

    @property
    def proxy_pid(self) -> int:
        assert self._proxy is not None
        return self._proxy.pid

    def start(self) -> None:
        self.etcd.start()
        self.start_proxy()

    def start_proxy(self) -> None:
        command = [sys.executable, "-P", "-m", "meshd", "proxy", f"--cluster={self.name}", f"--etcd={self.etcd.url}"]
        command += [f"--listen=127.0.0.1:{self.port}", f"--cert={self._server / 'tls.crt'}"]
        command += [f"--key={self._server / 'tls.key'}", f"--ca={self._server / 'ca.crt'}"]
        command += [f"--run-dir={self._folder / 'run'}"]
        with (self._folder / "proxy.log").open("ab") as log:
            self._proxy = subprocess.Popen(command, stdout=log, stderr=log)

    def kill_proxy(self) -> None:
        if self._proxy is not None:
            self._proxy.kill()
            self._proxy.wait(20)
            self._proxy = None

    def stop(self) -> None:
        self.kill_proxy()
        self.etcd.kill()

    def remote_file(self, reader: Leaf, **extra: object) -> str:
        """The text of a clustermesh file with which `reader` reaches this cluster."""
        folder = issue(self._authority, reader, self._certs, now=datetime.now(UTC))
        lines = [f"endpoints: ['https://127.0.0.1:{self.port}']", f"trusted-ca-file: {folder / 'ca.crt'}"]
        lines += [f"cert-file: {folder / 'tls.crt'}", f"key-file: {folder / 'tls.key'}"]
        return "\n".join([*lines, *(f"{key}: {value}" for key, value in extra.items())]) + "\n"


def new_authority(folder: Path) -> Authority:
    return init_ca(folder, now=datetime.now(UTC))
