from datetime import UTC, datetime

from meshd.agent.etcd.beacon import canary_keys, config_value, timestamp


def test_config_is_written_as_the_other_writers_write_it() -> None:
    value = config_value(7, max_clusters=511)
    assert value == b'{"id":7,"capabilities":{"syncedCanaries":true,"maxConnectedClusters":511}}'


def test_canaries_have_their_exact_names() -> None:
    assert sorted(canary_keys("c1")) == [
        "cilium/synced/c1/cilium/state/identities/v1",
        "cilium/synced/c1/cilium/state/ip/v1",
        "cilium/synced/c1/cilium/state/nodes/v1",
        "cilium/synced/c1/cilium/state/services/v1",
        "meshd/v1/synced/identities",
        "meshd/v1/synced/policies",
        "meshd/v1/synced/services",
    ]


def test_timestamps_are_rfc_3339_in_utc() -> None:
    assert timestamp(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == b"2026-01-02T03:04:05Z"
