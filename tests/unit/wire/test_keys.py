import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import keys
from wire.keys import BadKey, Key, Kind, Layout

cluster_names = st.from_regex(r"([a-z0-9][-a-z0-9]{0,30})?[a-z0-9]", fullmatch=True)
record_names = st.text("abc019.:-/", min_size=1, max_size=20).filter(lambda name: not name.startswith("/"))


@given(st.binary(min_size=1, max_size=6), st.binary(max_size=8))
def test_prefix_end_bounds_exactly_the_keys_with_the_prefix(prefix: bytes, other: bytes) -> None:
    end = keys.prefix_end(prefix)
    inside = prefix <= other and (end == b"\0" or other < end)
    assert inside == other.startswith(prefix)


@given(st.binary(min_size=1, max_size=4), st.integers(0, 3), st.binary(max_size=4))
def test_prefix_end_after_trailing_0xff(head: bytes, ones: int, tail: bytes) -> None:
    prefix = head + b"\xff" * ones
    end = keys.prefix_end(prefix)
    assert not end.endswith(b"\xff") or len(end) <= len(prefix.rstrip(b"\xff"))
    assert end == b"\0" or prefix + tail < end


@pytest.mark.parametrize(
    ("prefix", "end"),
    [
        (b"a", b"b"),
        (b"a\xff", b"b"),
        (b"a\xff\xff", b"b"),
        (b"\xff", b"\0"),
        (b"cilium/", b"cilium0"),
        (b"a\xfe", b"a\xff"),
    ],
)
def test_prefix_end_examples(prefix: bytes, end: bytes) -> None:
    assert keys.prefix_end(prefix) == end


@given(st.sampled_from(Kind), cluster_names, record_names, st.sampled_from(Layout))
def test_parse_reverses_record(kind: Kind, cluster: str, name: str, layout: Layout) -> None:
    parsed = keys.parse(keys.record(kind, cluster, name, layout))
    unscoped = kind in keys.LOCAL_KINDS or (layout is Layout.STATE and kind in (Kind.IDENTITY, Kind.IP))
    expected_layout = Layout.STATE if kind in keys.LOCAL_KINDS else layout
    assert parsed == Key(kind, expected_layout, "" if unscoped else cluster, name)


@given(st.sampled_from(Kind), cluster_names, cluster_names, record_names, st.sampled_from(Layout))
def test_a_prefix_never_matches_another_cluster(kind: Kind, one: str, two: str, name: str, layout: Layout) -> None:
    start, end = keys.interval(keys.prefix(kind, one, layout))
    key = keys.record(kind, two, name, layout).encode()
    unscoped = kind in keys.LOCAL_KINDS or (layout is Layout.STATE and kind in (Kind.IDENTITY, Kind.IP))
    assert (start <= key < end) == (one == two or unscoped)


def test_cluster1_does_not_match_cluster10() -> None:
    start, end = keys.interval(keys.prefix(Kind.NODE, "cluster1"))
    assert start <= b"cilium/state/nodes/v1/cluster1/n" < end
    assert not start <= b"cilium/state/nodes/v1/cluster10/n" < end


@given(st.text(max_size=60))
def test_parse_refuses_what_is_no_record(text: str) -> None:
    try:
        key = keys.parse(text)
    except BadKey:
        return
    assert keys.record(key.kind, key.cluster, key.name, key.layout) == text


@pytest.mark.parametrize(
    "key",
    [
        "",
        "cilium/state/nodes/v1/cluster1",
        "cilium/state/nodes/v1/cluster1/",
        "cilium/state/nodes/v1/Cluster_1/n",
        "cilium/state/identities/v1/id/",
        "cilium/state/identities/v1/value/k8s:a=b;/10.0.0.1",
        "cilium/state/ip/v1/other/10.0.0.1",
        "cilium/cache/identities/v1/cluster1/value/1",
        "cilium/state/endpointslices/v1/cluster1/default/x",
        "meshd/v1/services/",
        "meshd/v1/generation",
    ],
)
def test_parse_names_what_is_wrong(key: str) -> None:
    with pytest.raises(BadKey):
        keys.parse(key)


def test_canaries_have_the_names_that_readers_expect() -> None:
    assert keys.canary(Kind.IDENTITY, "c3") == "cilium/synced/c3/cilium/state/identities/v1"
    assert keys.canary(Kind.IP, "c3") == "cilium/synced/c3/cilium/state/ip/v1"
    assert keys.canary(Kind.NODE, "c3", Layout.CACHE) == "cilium/synced/c3/cilium/cache/nodes/v1"
    assert keys.canary(Kind.LOCAL_SERVICE, "c3") == "meshd/v1/synced/services"


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("c", True),
        ("cluster-1", True),
        ("", False),
        ("-a", False),
        ("a-", False),
        ("a" * 33, False),
        ("A", False),
        ("a\n", False),
    ],
)
def test_cluster_names(name: str, good: bool) -> None:
    assert keys.is_cluster_name(name) is good
