from pathlib import Path

import pytest

from meshd.config import ConfigError, load
from meshd.etcd import EtcdSettings

FILES: dict[str, object] = {"etcd_ca": "/ca", "etcd_cert": "/cert", "etcd_key": "/key"}


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://127.0.0.1:2379", "127.0.0.1:2379"),
        ("http://etcd.example", "etcd.example:2379"),
        ("http://[::1]:1", "[::1]:1"),
        ("http://h/", "h:2379"),
    ],
)
def test_where_etcd_is(url: str, target: str) -> None:
    found = load(EtcdSettings, None, {"etcd": url}).endpoint()
    assert (found.target, found.credentials(), found.refresh()) == (target, None, False)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"etcd": "127.0.0.1:2379"}, "etcd: must look like http://HOST:PORT, or https://"),
        ({"etcd": "http://"}, "etcd: must look like http://"),
        ({"etcd": "http://h:99999"}, "etcd: Port out of range"),
        ({"etcd": "ftp://h:1"}, "etcd: must look like http://"),
        ({"etcd": "https://h:1"}, "mutual TLS: etcd_ca, etcd_cert, etcd_key must be given too"),
        ({"etcd": "https://h:1", **FILES, "etcd_ca": None}, "mutual TLS: etcd_ca must be given too"),
        ({"etcd": "http://h:1", "etcd_ca": "/ca"}, "reached in clear: say https://"),
    ],
)
def test_what_is_wrong_is_said(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(EtcdSettings, None, settings)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    settings = load(EtcdSettings, None, {"etcd": "https://h:1", **FILES, "etcd_cert": str(tmp_path / "none")})
    with pytest.raises(ConfigError, match=r"etcd_ca, etcd_cert, etcd_key: .*none cannot be read"):
        settings.endpoint()
