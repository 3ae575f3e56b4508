import pytest

from meshd.agent.etcd.beacon import config_value
from meshd.agent.etcd.ownership import NotOurs, check_ownership

OURS = config_value(1, max_clusters=255)


def test_an_empty_etcd_and_our_own_are_ours() -> None:
    check_ownership({}, cluster="c1", cluster_id=1)
    check_ownership({"c1": OURS}, cluster="c1", cluster_id=1)


def test_copies_of_remote_clusters_and_garbage_are_nobodys_claim() -> None:
    cached = b'{"id":2,"capabilities":{"syncedCanaries":true,"cached":true}}'
    check_ownership({"c2": cached, "c3": b"garbage", "c1": OURS}, cluster="c1", cluster_id=1)


@pytest.mark.parametrize(
    ("configs", "words"),
    [
        (
            {"c1": OURS, "c2": config_value(2, max_clusters=255)},
            r"belongs to cluster 'c2' .* an etcd of its own",
        ),
        ({"c1": config_value(7, max_clusters=255)}, r"'c1' has the ID 7 .* not 1"),
        ({"c1": b'{"id":1,"capabilities":{"serviceExportsEnabled":false}}'}, "another program publishes 'c1'"),
    ],
)
def test_another_writers_etcd_is_refused(configs: dict[str, bytes], words: str) -> None:
    with pytest.raises(NotOurs, match=words):
        check_ownership(configs, cluster="c1", cluster_id=1)
