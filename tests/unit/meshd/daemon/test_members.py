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


def test_an_id_is_free_again_when_nothing_of_its_cluster_stands(members: Members) -> None:
    members.leave("cluster2")
    with pytest.raises(IdTaken, match="was that of cluster2, of which entries still stand"):
        members.join("cluster3", 2)
    members.release()
    members.join("cluster3", 2)
    assert members.name_of(2) == "cluster3"


def test_who_comes_back_while_it_is_removed_has_its_id_still(members: Members) -> None:
    members.leave("cluster2")
    members.join("cluster2", 2)
    assert not members.leaving
    members.leave("cluster2")
    members.join("cluster2", 3)
    with pytest.raises(IdTaken, match="its ID 2 was that of cluster2"):
        members.join("cluster4", 2)


def test_an_id_that_was_changed_for_another_is_not_free_at_once(members: Members) -> None:
    members.join("cluster2", 3)
    with pytest.raises(IdTaken, match="its ID 2 was that of cluster2"):
        members.join("cluster4", 2)
    members.release()
    members.join("cluster4", 2)


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


@pytest.mark.parametrize("theirs", [0, 255, 511])
def test_only_a_mesh_of_511_asks_how_the_others_number(members: Members, theirs: int) -> None:
    members.agree(theirs)
    large = Members("cluster1", 1, max_clusters=511)
    if theirs == 511:
        large.agree(theirs)
    else:
        with pytest.raises(IdTaken, match="numbers identities for 255 clusters, we for 511"):
            large.agree(theirs)
