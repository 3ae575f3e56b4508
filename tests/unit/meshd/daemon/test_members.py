import pytest

from meshd.daemon.members import IdTaken, Members


@pytest.fixture
def members() -> Members:
    made = Members("cluster1", 1, max_clusters=255)
    made.join("cluster2", 2)
    return made


@pytest.mark.parametrize(
    ("cluster", "number", "says"),
    [
        ("cluster3", 2, "that of cluster2"),
        ("cluster3", 1, "that of cluster1"),
        ("cluster3", 0, "must be 1 to 255"),
        ("cluster3", 256, "must be 1 to 255"),
        ("cluster1", 5, "one is wrong"),
    ],
)
def test_an_id_belongs_to_one_cluster(members: Members, cluster: str, number: int, says: str) -> None:
    with pytest.raises(IdTaken, match=says):
        members.join(cluster, number)


def test_an_id_is_free_again_when_its_cluster_left(members: Members) -> None:
    members.leave("cluster2")
    members.join("cluster3", 2)
    assert members.name_of(2) == "cluster3"


def test_we_do_not_leave_ourselves(members: Members) -> None:
    members.leave("cluster1")
    assert members.name_of(1) == "cluster1"


def test_we_are_believed_first_then_the_lower_id(members: Members) -> None:
    members.join("a-later-one", 3)
    assert sorted(["a-later-one", "unheard", "cluster2", "cluster1"], key=members.rank) == [
        "cluster1",
        "cluster2",
        "a-later-one",
        "unheard",
    ]
