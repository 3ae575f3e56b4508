import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdproxy.policy import Interval, Policy, Role, Users, allows, grants

# Keys around the edges of what is granted, and what a peer might try with them.
_EDGES = [
    b"", b"\0", b"cilium", b"cilium/", b"cilium0", b"cilium/.heartbeat", b"cilium/.heartbeau", b"cilium/.initlock",
    b"cilium/cache/", b"cilium/cache0", b"cilium/cluster-config/", b"cilium/cluster-config/c1",
    b"cilium/cluster-config/c10", b"cilium/cluster-config/c2", b"cilium/cluster-config0", b"cilium/state",
    b"cilium/state/", b"cilium/state/ip/v1/default/10.0.0.1", b"cilium/state0", b"cilium/synced/", b"cilium/synced/c1",
    b"cilium/synced/c1/", b"cilium/synced/c10", b"cilium/synced/c10/", b"cilium/synced/c2/x", b"cilium/synced0",
    b"meshd/", b"meshd/v1/identities/65537", b"meshd0", b"registry/secrets/x", b"\xff", b"\xff\xff",
]  # fmt: skip
_keys = st.one_of(
    st.sampled_from(_EDGES),
    st.builds(lambda edge, tail: edge + tail, st.sampled_from(_EDGES), st.binary(max_size=2)),
    st.binary(max_size=6),
)
_names = st.sampled_from(["remote", "remote-c2", "local-c1", "daemon-c1", "admin-c1", "daemon-c2", "nobody", ""])


def outside(name: str, key: bytes) -> bool:
    """Whether a peer must never see this key: the rules in plain words, independent of the code under test."""
    text = key.decode("latin-1")
    if name == "admin-c1":
        return False
    if name == "daemon-c1":
        return not text.startswith(("cilium/", "meshd/"))
    if name in ("remote", "remote-c2"):
        mine = ("cilium/.heartbeat", "cilium/state/", "cilium/synced/c1/")
        return not (text.startswith(mine) or text == "cilium/cluster-config/c1")
    if name == "local-c1":
        seen = ("cilium/.heartbeat", "cilium/cache/", "cilium/cluster-config/", "cilium/synced/")
        return not text.startswith(seen)
    return True


@given(name=_names, key=_keys, range_end=_keys, probe=_keys)
def test_never_a_key_outside_the_grant(name: str, key: bytes, range_end: bytes, probe: bytes) -> None:
    wanted = Interval.of_request(key, range_end)
    if allows(Policy("c1").granted(name), wanted) and wanted.holds(probe):
        assert not outside(name, probe)


@given(key=_keys, range_end=_keys, probe=_keys)
def test_interval_holds_what_etcd_would_read(key: bytes, range_end: bytes, probe: bytes) -> None:
    if range_end == b"":
        expected = probe == key
    elif range_end == b"\0":
        expected = probe >= key
    else:
        expected = key <= probe < range_end
    assert Interval.of_request(key, range_end).holds(probe) == expected


@given(name=_names, key=_keys)
def test_every_key_inside_the_grant_may_be_read(name: str, key: bytes) -> None:
    assert allows(Policy("c1").granted(name), Interval.of_request(key, b"")) != outside(name, key)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("remote", Role.REMOTE),
        ("remote-anything", Role.REMOTE),
        ("local-c1", Role.LOCAL),
        ("daemon-c1", Role.DAEMON),
        ("admin-c1", Role.ADMIN),
        ("daemon-c2", None),  # the CA is the same, the cluster is not
        ("admin-c2", None),
        ("local-", None),
        ("remote-", None),
        ("remote-UP", None),
        ("root", None),
        ("c1.mesh.cilium.io", None),
        ("", None),
    ],
)
def test_a_name_says_its_role(name: str, role: Role | None) -> None:
    assert Policy("c1").role_of(name) is role


def test_users_replace_names_and_denials_win() -> None:
    users = Users({"remote-c2": Role.REMOTE, "boss": Role.ADMIN}, frozenset({"remote-c2"}))
    policy = Policy("c1", users)
    assert policy.role_of("boss") is Role.ADMIN
    assert policy.role_of("remote-c2") is None
    assert policy.role_of("daemon-c1") is None
    assert Policy("c1", Users(denied=frozenset({"daemon-c1"}))).granted("daemon-c1") == ()


def test_remote_sees_no_other_cluster_with_a_longer_name() -> None:
    granted = grants(Role.REMOTE, "c1")
    assert not allows(granted, Interval.of_prefix("cilium/synced/c10/"))
    assert not allows(granted, Interval.of_prefix("cilium/cluster-config/c1"))
    assert allows(granted, Interval.of_prefix("cilium/.heartbeat"))
