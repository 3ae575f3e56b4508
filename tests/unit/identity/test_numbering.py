import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.numbering import CLUSTER_LIMITS, cluster_of, identity_range, local_bits


def test_the_examples_of_the_contract() -> None:
    assert identity_range(3) == range(0x30000, 0x40000)
    assert identity_range(3, max_clusters=511) == range(0x18000, 0x20000)
    assert identity_range(0) == range(256, 65536)
    assert cluster_of(199472) == 3
    assert (local_bits(255), local_bits(511)) == (16, 15)


@given(st.sampled_from(CLUSTER_LIMITS), st.data())
def test_ranges_of_clusters_do_not_overlap_and_fit_24_bits(limit: int, data: st.DataObject) -> None:
    one, two = data.draw(st.lists(st.integers(0, limit), min_size=2, max_size=2, unique=True))
    first, second = identity_range(one, max_clusters=limit), identity_range(two, max_clusters=limit)
    assert first.stop <= second.start or second.stop <= first.start
    assert max(first.stop, second.stop) <= 1 << 24
    number = data.draw(st.integers(first.start, first.stop - 1))
    assert cluster_of(number, max_clusters=limit) == one


@pytest.mark.parametrize(("cluster", "limit"), [(-1, 255), (256, 255), (512, 511), (1, 100)])
def test_what_no_cluster_can_have_is_refused(cluster: int, limit: int) -> None:
    with pytest.raises(ValueError, match="255"):
        identity_range(cluster, max_clusters=limit) if limit != 511 else identity_range(600)
