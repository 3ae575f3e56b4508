from datetime import UTC, datetime
from pathlib import Path

import pytest

from certs.authority import Authority, init_ca
from certs.leaves import issue
from certs.names import CertsError, Leaf
from certs.reload import LivePair

NOW = datetime.now(UTC)
SERVER = Leaf.parse("server-c1")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return init_ca(tmp_path, now=NOW)


@pytest.fixture
def live(tmp_path: Path, authority: Authority) -> LivePair:
    folder = issue(authority, SERVER, tmp_path, now=NOW)
    return LivePair(folder / "tls.crt", folder / "tls.key", tmp_path / "ca" / "ca.crt")


def test_follows_a_new_generation(tmp_path: Path, authority: Authority, live: LivePair) -> None:
    before = live.pair
    assert not live.refresh()
    issue(authority, SERVER, tmp_path, now=NOW)
    assert live.refresh()
    assert live.pair != before
    assert not live.refresh()


def test_follows_a_ca_bundle(tmp_path: Path, live: LivePair) -> None:
    other = init_ca(tmp_path / "other", now=NOW)
    bundle = tmp_path / "ca" / "ca.crt"
    bundle.write_bytes(bundle.read_bytes() + other.bundle)
    assert live.refresh()
    assert live.pair.authorities.endswith(other.bundle)


def test_keeps_the_old_pair_while_the_new_one_does_not_match(tmp_path: Path, live: LivePair) -> None:
    before = live.pair
    key = tmp_path / "server" / "tls.key"
    own_key = key.read_bytes()
    other = init_ca(tmp_path / "other", now=NOW)
    stranger = issue(other, SERVER, tmp_path / "other", now=NOW)
    key.write_bytes((stranger / "tls.key").read_bytes())
    assert not live.refresh()
    assert "is not the key of" in live.problem
    assert live.pair == before
    key.unlink()
    assert not live.refresh()
    assert "cannot be read" in live.problem
    key.write_bytes(own_key)
    assert not live.refresh()  # the same pair as before
    assert live.problem == ""
    (tmp_path / "server" / "tls.crt").write_bytes((stranger / "tls.crt").read_bytes())
    key.write_bytes((stranger / "tls.key").read_bytes())
    assert live.refresh()


def test_must_be_good_at_the_start(tmp_path: Path, live: LivePair) -> None:
    with pytest.raises(CertsError):
        LivePair(tmp_path / "none", tmp_path / "server/tls.key", tmp_path / "ca/ca.crt")
