"""Where this cluster's etcd is: settings that agent and proxy share, in clear or with mutual TLS."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import grpc
from pydantic import Field, ValidationInfo, field_validator

from certs.names import CertsError
from certs.pair import Pair
from certs.reload import LivePair
from meshd.config import ConfigError, Settings

DEFAULT_PORT = 2379


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`target` is HOST:PORT. `pair`: our certificate, its key and the CA of etcd's; None: in clear."""

    target: str
    pair: LivePair | None = None

    def refresh(self) -> bool:
        """Looks at the files; True if there is another certificate now, which only new connections use."""
        return self.pair is not None and self.pair.refresh()

    def credentials(self) -> grpc.ChannelCredentials | None:
        """For a new channel; None: an insecure one."""
        if self.pair is None:
            return None
        now = self.pair.pair
        return grpc.ssl_channel_credentials(now.authorities, now.key, now.certificate)

    def renewed(self) -> Pair | None:
        """The files as they are now; None: in clear."""
        self.refresh()
        return self.pair.pair if self.pair is not None else None


class EtcdSettings(Settings):
    """The settings that say it."""

    etcd: str
    #: PEM files for an `https://` endpoint: the CA of etcd's certificate, our certificate and its key.
    etcd_ca: Path | None = None
    etcd_cert: Path | None = None
    etcd_key: Path | None = Field(default=None, validate_default=True)

    @field_validator("etcd")
    @classmethod
    def _check_etcd(cls, url: str) -> str:
        split_url(url)
        return url

    @field_validator("etcd_key")
    @classmethod
    def _check_etcd_files(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        """On the last of them, so that this is said together with what is wrong elsewhere."""
        if (url := info.data.get("etcd")) is None:
            return key
        files = {"etcd_ca": info.data.get("etcd_ca"), "etcd_cert": info.data.get("etcd_cert"), "etcd_key": key}
        missing = [name for name, file in files.items() if file is None]
        if split_url(url)[0] == "https" and missing:
            raise ValueError(f"{url} is reached with mutual TLS: {', '.join(missing)} must be given too")
        if split_url(url)[0] == "http" and len(missing) < len(files):
            raise ValueError(f"{url} is reached in clear: say https://, or leave etcd_ca, etcd_cert and etcd_key out")
        return key

    def endpoint(self) -> Endpoint:
        """Reads the files. Raises ConfigError."""
        _, target = split_url(self.etcd)
        if self.etcd_cert is None or self.etcd_key is None or self.etcd_ca is None:
            return Endpoint(target)
        try:
            return Endpoint(target, LivePair(self.etcd_cert, self.etcd_key, self.etcd_ca))
        except CertsError as error:
            raise ConfigError(f"etcd_ca, etcd_cert, etcd_key: {error}") from error


def split_url(url: str) -> tuple[str, str]:
    """Scheme and HOST:PORT of an endpoint such as `http://127.0.0.1:2379`. Raises ValueError."""
    parts = urlsplit(url)
    port = parts.port or DEFAULT_PORT
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
        raise ValueError("must look like http://HOST:PORT, or https://HOST:PORT with etcd_ca, etcd_cert and etcd_key")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return parts.scheme, f"{host}:{port}"
