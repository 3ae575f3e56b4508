from pathlib import Path

import pytest

from meshd.agent.settings import AgentConfig
from meshd.config import ConfigError, load

GOOD: dict[str, object] = {"cluster": "c1", "cluster_id": 1, "etcd": "http://127.0.0.1:2379", "manifests": "/m"}


def test_defaults() -> None:
    config = load(AgentConfig, None, GOOD)
    assert config.lease_ttl_s == 900
    assert config.socket == Path("/run/meshd/c1/agent.sock")
    assert load(AgentConfig, None, GOOD | {"instance": "x", "run_dir": "/r"}).socket == Path("/r/x/agent.sock")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cluster": "C1"}, "cluster: .* a-z, 0-9"),
        ({"cluster_id": 0}, "cluster_id: .* greater than or equal to 1"),
        ({"cluster_id": 256}, "cluster_id 256 is above max_clusters 255"),
        ({"max_clusters": 300}, "max_clusters: .* 255 or 511"),
        ({"lease_ttl_s": 5}, "lease_ttl_s: .* 25"),
        ({"beacon_ttl_s": 900}, "beacon_ttl_s 900 must be less than lease_ttl_s 900"),
        ({"drop_labels": ["("]}, "drop_labels: .* is no pattern"),
        ({"surprise": 1}, "surprise"),
        ({"kubeconfig": "/k"}, "exactly one source is needed.*manifests and kubeconfig"),
        ({"context": "x", "manifests": None, "in_cluster": True}, "exactly one source.* and in_cluster are given"),
        ({"import_from": "/mesh"}, "import_from needs a cluster to write EndpointSlices into"),
        ({"manifests": None}, "exactly one source is needed.*none is given"),
    ],
)
def test_what_is_wrong_is_said(change: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(AgentConfig, None, GOOD | change)
