"""How to reach the API server, as the kubernetes client's configuration says. Its models and calls are not used."""

import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshd.config import ConfigError


@dataclass(frozen=True, slots=True)
class Access:
    """Everything that one request needs. `server_name`: what the certificate must say, "" for the URL's host."""

    url: str
    headers: dict[str, str]
    tls: ssl.SSLContext
    server_name: str
    proxy: str


class Credentials:
    """Of a kubeconfig (without a path: kubectl's own), or of the pod that we run in. Blocks: call it from a thread."""

    def __init__(self, *, kubeconfig: Path | None = None, context: str = "", in_cluster: bool = False) -> None:
        self._kubeconfig = kubeconfig
        self._context = context
        self._in_cluster = in_cluster
        self._lock = threading.Lock()
        self._configuration: Any = None
        self._tls: tuple[object, ssl.SSLContext] | None = None

    @property
    def name(self) -> str:
        """Where they come from, for people."""
        if self._in_cluster:
            return "this pod's service account"
        place = str(self._kubeconfig) if self._kubeconfig else "kubectl's own"
        return f"kubeconfig {place}" + (f", context {self._context}" if self._context else "")

    def access(self) -> Access:
        """With a token that is fresh, as far as its expiry is known. Raises ConfigError."""
        from kubernetes.config import ConfigException

        with self._lock:
            try:
                found = self._configuration = self._configuration or self._load()
                token = found.get_api_key_with_prefix("BearerToken", alias="authorization")
                headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "meshd-agent"}
                if token:
                    headers["Authorization"] = token
                url = found.host.rstrip("/")
                return Access(url, headers, self._context_of(found), found.tls_server_name or "", _proxy(found))
            except (OSError, ValueError, ConfigException) as error:
                raise ConfigError(f"{self.name}: {error}") from error

    def renew(self) -> None:
        """The API server does not know the token: everything is read afresh at the next `access`."""
        with self._lock:
            self._configuration = None

    def _load(self) -> Any:
        # Not above: the client takes half a second and 40 MB, which a folder of manifests need not pay.
        from kubernetes.client import Configuration
        from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

        configuration = Configuration()
        try:
            if self._in_cluster:
                load_incluster_config(client_configuration=configuration)
            else:
                load_kube_config(
                    config_file=str(self._kubeconfig) if self._kubeconfig else None,
                    context=self._context or None,
                    client_configuration=configuration,
                    persist_config=False,
                )
        except (ConfigException, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"{self.name}: cannot be used ({error})") from error
        return configuration

    def _context_of(self, configuration: Any) -> ssl.SSLContext:
        """The same one until a file changes, so that connections can be used again."""
        files = [configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file]
        stamp = [configuration.verify_ssl, *((file, Path(file).stat().st_mtime_ns) for file in files if file)]
        if self._tls is None or self._tls[0] != stamp:
            context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
            if not configuration.verify_ssl:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if configuration.cert_file:
                context.load_cert_chain(configuration.cert_file, configuration.key_file)
            self._tls = stamp, context
        return self._tls[1]


def _proxy(configuration: Any) -> str:
    from kubernetes.client.rest import should_bypass_proxies

    bypass = should_bypass_proxies(configuration.host, configuration.no_proxy or "")
    return "" if bypass else configuration.proxy or ""
