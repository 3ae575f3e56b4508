"""The ends of a flow, as `explain flow` and `policy trace` take them."""

import pytest
from click.testing import CliRunner

from meshd.ends import End, doubts, route_of
from meshd.explain import explain
from meshd.flow import flow
from meshd.policies import policy


@pytest.mark.parametrize("destination", ["10.0.0.2", "10.0.0.2:", "10.0.0.2:http", "10.0.0.2:65536", "10.0.0.2:\u00b2"])
def test_a_destination_needs_a_port(destination: str) -> None:
    for command, words in ((explain, [flow.name]), (policy, ["trace"])):
        result = CliRunner().invoke(command, [*map(str, words), "10.0.0.1", destination])
        assert result.exit_code == 2
        assert "is not DST:PORT" in result.output


def test_names_stand_whole_in_the_route() -> None:
    assert route_of("c1/ns/pod", End("fd00::1", 80), "TCP") == "c1%2Fns%2Fpod/fd00%3A%3A1/TCP/80"


def test_a_name_of_pods_of_several_clusters_is_doubtful() -> None:
    def answer(source: str, destination: str) -> dict[str, dict[str, str]]:
        return {"source": {"cluster": source}, "destination": {"cluster": destination}}

    both = [answer("cluster2", "cluster2"), answer("cluster1", "cluster2")]
    (doubt,) = doubts("default/x-wing", End("20.0.0.1", 80), both)
    assert doubt == (
        "default/x-wing is a pod of cluster1 and of cluster2: say which, for example cluster1/default/x-wing"
    )
    assert not list(doubts("cluster1/default/x-wing", End("20.0.0.1", 80), both))
    assert not list(doubts("default/x-wing", End("20.0.0.1", 80), both[:1]))
