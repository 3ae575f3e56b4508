import pytest

from certs.names import CertsError, Kind, Leaf, kind_of


def test_leaf_reads_what_it_is_called() -> None:
    assert Leaf.parse("remote-a-b1") == Leaf(Kind.REMOTE, "a-b1")
    assert Leaf.parse("remote").common_name == "remote"
    assert Leaf.parse("server-c1").common_name == "c1.mesh.cilium.io"
    assert Leaf.parse("daemon-c1").folder == "daemon-c1"


@pytest.mark.parametrize("text", ["", "server", "admin", "root-c1", "remotec1", "Remote-c1"])
def test_unknown_leaf_is_named(text: str) -> None:
    with pytest.raises(CertsError, match="unknown leaf"):
        Leaf.parse(text)


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a.b", "a" * 33, "a\n", "ä", "a/b", "../a"])
def test_invalid_cluster_names(name: str) -> None:
    with pytest.raises(CertsError, match="invalid cluster name"):
        Leaf.parse(f"remote-{name}")


@pytest.mark.parametrize("name", ["a", "0", "a-b", "a--b", "a" * 32])
def test_valid_cluster_names(name: str) -> None:
    assert Leaf.parse(f"admin-{name}").cluster == name


def test_kind_of_a_common_name() -> None:
    assert kind_of("c1.mesh.cilium.io") == "server"
    assert kind_of("remote") == "remote"
    assert kind_of("local-c1") == "local"
    assert kind_of("somebody") == "other"
