from meshd.testbed.kindnet import ruleset
from meshd.testbed.plan import plan_cluster


def test_only_what_leaves_the_cluster_is_masqueraded() -> None:
    text = ruleset(plan_cluster(1))
    assert "ip saddr 10.0.0.0/16 ip daddr != 10.0.0.0/16" in text
    assert text.endswith("masquerade")
