"""The Kubernetes source against an API server over real HTTPS."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from kubernetes.config import incluster_config

from meshd.agent.objects import ObjectKind, Ref
from meshd.agent.sources.cluster import KubernetesSource
from meshd.agent.sources.credentials import Credentials
from meshd.agent.sources.manifests import ManifestSource
from meshd.agent.sources.reflector import Timing
from meshd.agent.sources.source import Source
from meshd.agent.state import LocalState
from meshd.config import ConfigError
from tests.support import kubernetes
from tests.support.apiserver import ApiServer
from tests.support.relay import Relay

DEADLINE_S = 15.0
QUICK = Timing(page=3, silence_s=5.0, confirm_s=0.05, absent_s=0.1, max_retry_s=0.2)
PODS = "/api/v1/pods"
CILIUM = "/apis/cilium.io/v2/ciliumnetworkpolicies"
GOLDEN = Path(__file__).parents[4] / "golden" / "cluster1.objects.json"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with ApiServer(tmp_path) as running:
        yield running


class Follower:
    """Takes in what a source says."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.state = LocalState()
        self.synced = False
        self.whole = False
        self.said = 0

    async def run(self) -> None:
        async for changes in self.source.changes():
            self.state.apply(changes)
            self.said += len(changes.upserts) + len(changes.deletes)
            self.synced |= changes.synced
            self.whole = changes.whole

    def pods(self) -> set[str]:
        return {name for _, name in self.state.pods}

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110 - of a thread and of two tasks
                await asyncio.sleep(0.01)


@asynccontextmanager
async def following(source: Source) -> AsyncIterator[Follower]:
    follower = Follower(source)
    task = asyncio.create_task(follower.run())
    try:
        yield follower
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def source(server: ApiServer, timing: Timing = QUICK, **user: Any) -> KubernetesSource:
    return KubernetesSource(Credentials(kubeconfig=server.kubeconfig(**user)), timing)


def pods(*numbers: int) -> list[kubernetes.Document]:
    return [kubernetes.pod(f"p{n}", f"10.0.0.{n}") for n in numbers]


async def test_it_lists_in_pages_and_follows(server: ApiServer) -> None:
    server.put(*pods(1, 2, 3, 4, 5, 6, 7))
    async with following(source(server)) as follower:
        await follower.until(lambda: follower.synced)
        assert follower.pods() == {"p1", "p2", "p3", "p4", "p5", "p6", "p7"}
        pages = [query for path, query in server.requests if path == PODS and "watch" not in query]
        assert [("continue" in query, query["limit"]) for query in pages] == [(False, "3"), (True, "3"), (True, "3")]
        server.put(*pods(8))
        server.delete(*pods(1))
        await follower.until(lambda: "p8" in follower.pods() and "p1" not in follower.pods())
        server.put(kubernetes.pod("p8", "10.0.0.88"))
        await follower.until(lambda: follower.state.pods["default", "p8"].addresses == ["10.0.0.88"])


async def test_both_sources_give_the_same_state(server: ApiServer, tmp_path: Path) -> None:
    documents: list[kubernetes.Document] = [
        *json.loads(GOLDEN.read_text())["items"],
        *pods(1, 2),
        kubernetes.node("extra", pod_cidrs=["10.9.0.0/24", "fd00::/64"], annotations={"meshd.io/x": "y"}),
        kubernetes.policy("p", ingress=[{"from": [{"podSelector": {}}]}]),
        kubernetes.cilium_policy("p", namespace="shop"),
        kubernetes.cilium_policy("p", specs=[{"endpointSelector": {}}]),
    ]
    ours = [each for each in documents if each["kind"] in list(ObjectKind)]
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "all.yaml").write_text(yaml.safe_dump_all(documents))
    server.put(*ours)
    async with following(ManifestSource(folder)) as one, following(source(server)) as other:
        await one.until(lambda: one.synced and other.synced)
        assert sum(one.state.count().values()) == len(ours)
        for table in ("namespaces", "nodes", "pods", "services", "slices", "policies"):
            assert getattr(one.state, table) == getattr(other.state, table), table
        assert one.source.problems == other.source.problems == []


async def test_a_watch_that_is_cut_goes_on_where_it_was(server: ApiServer) -> None:
    server.put(*pods(1))
    async with following(source(server)) as follower:
        await follower.until(lambda: follower.synced)
        server.put(*pods(2))
        await follower.until(lambda: "p2" in follower.pods())
        said = follower.said
        server.cut()
        server.put(*pods(3))
        server.delete(*pods(1))
        await follower.until(lambda: follower.pods() == {"p2", "p3"})
        assert follower.said == said + 2
        assert server.count(PODS, watch=False) == 1


async def test_bookmarks_keep_a_quiet_kind_from_falling_behind(server: ApiServer) -> None:
    server.put(*pods(1))
    async with following(source(server)) as follower:
        await follower.until(lambda: follower.synced)
        nodes = "/api/v1/nodes"
        await follower.until(lambda: server.count(nodes, watch=True) == 1)
        server.put(*pods(2, 3, 4))
        server.compact()
        await asyncio.sleep(0.3)  # bookmarks come every 0.1 s
        server.cut()
        await follower.until(lambda: len(server.watched_from(nodes)) >= 2)
        first, *_, last = server.watched_from(nodes)
        assert last > first
        assert server.count(nodes, watch=False) == 1


@pytest.mark.parametrize("as_event", [True, False])
async def test_after_410_everything_is_listed_again_and_swept(server: ApiServer, as_event: bool) -> None:
    server.faults.gone_as_event = as_event
    server.put(*pods(1, 2, 3, 4))
    async with following(source(server)) as follower:
        await follower.until(lambda: follower.synced)
        server.stop()
        server.put(*pods(5))
        server.delete(*pods(1, 4))
        server.compact()
        server.start()
        await follower.until(lambda: follower.pods() == {"p2", "p3", "p5"})
        assert server.count(PODS, watch=False) >= 2


async def test_a_server_that_is_away_costs_nothing_but_time(server: ApiServer) -> None:
    server.put(*pods(1, 2))
    async with following(source(server)) as follower:
        await follower.until(lambda: follower.synced)
        server.stop()
        await follower.until(lambda: follower.source.problems)
        assert follower.pods() == {"p1", "p2"}
        server.delete(*pods(1))
        server.start()
        await follower.until(lambda: follower.pods() == {"p2"})
        await follower.until(lambda: not follower.source.problems)


async def test_a_list_that_breaks_off_is_begun_again(server: ApiServer) -> None:
    server.faults.cut_lists = 2
    server.put(*pods(1, 2, 3, 4, 5))
    async with following(source(server)) as follower:
        await follower.until(lambda: follower.synced)
        assert len(follower.pods()) == 5


async def test_what_a_broken_list_told_of_is_swept_as_well(server: ApiServer) -> None:
    server.faults.cut_lists = 1000
    server.put(*pods(1, 2, 3, 4, 5))
    async with following(source(server)) as follower:
        await follower.until(lambda: "p1" in follower.pods())
        server.delete(*pods(1))
        server.faults.cut_lists = 0
        await follower.until(lambda: follower.synced and follower.pods() == {"p2", "p3", "p4", "p5"})


async def test_a_page_that_is_too_old_makes_it_list_all_at_once(server: ApiServer) -> None:
    server.faults.forget_pages = 1
    server.put(*pods(1, 2, 3, 4, 5))
    async with following(source(server)) as follower:
        await follower.until(lambda: follower.synced)
        assert len(follower.pods()) == 5
        assert any("limit" not in query for path, query in server.requests if path == PODS)


async def test_a_watch_on_which_nothing_is_heard_is_given_up(server: ApiServer) -> None:
    server.put(*pods(1))
    async with following(source(server, Timing(silence_s=0.5, confirm_s=0.05, max_retry_s=0.2))) as follower:
        await follower.until(lambda: follower.synced)
        server.faults.silent = True
        server.cut()
        server.put(*pods(2))
        await follower.until(lambda: any("said nothing" in str(problem) for problem in follower.source.problems))
        server.faults.silent = False
        await follower.until(lambda: "p2" in follower.pods())


@pytest.mark.parametrize("there", [True, False])
async def test_a_connection_that_is_open_on_one_side_only_is_given_up(server: ApiServer, there: bool) -> None:
    relay = Relay(f"127.0.0.1:{server.port}")
    try:
        file = server.kubeconfig(address=relay.address)
        quick = replace(QUICK, silence_s=0.5)
        async with following(KubernetesSource(Credentials(kubeconfig=file), quick)) as follower:
            await follower.until(lambda: follower.synced and server.count(PODS, watch=True))
            relay.stall(there=there, back=True)
            server.put(*pods(1))
            await follower.until(lambda: "said nothing for too long" in str(follower.source.problems))
            assert follower.pods() == set()
            relay.renew()  # what was on its way is lost
            await follower.until(lambda: "p1" in follower.pods() and not follower.source.problems)
    finally:
        relay.close()


async def test_versions_that_went_backwards_are_noticed(server: ApiServer) -> None:
    server.put(*pods(1, 2))
    async with following(source(server, Timing(silence_s=0.3, confirm_s=0.05, max_retry_s=0.1))) as follower:
        await follower.until(lambda: follower.synced)
        server.stop()
        server.delete(*pods(1))
        server.rewind()
        server.start()
        await follower.until(lambda: follower.pods() == {"p2"})


async def test_a_missing_kind_is_normal_and_noticed_when_it_comes_and_goes(server: ApiServer) -> None:
    server.absent = {CILIUM, "/apis/cilium.io/v2/ciliumclusterwidenetworkpolicies"}
    policy = kubernetes.cilium_policy("p", namespace="shop")
    async with following(source(server)) as follower:
        await follower.until(lambda: follower.synced)
        assert follower.source.problems == []
        server.put(policy)
        server.absent = set()
        ref = Ref(ObjectKind.CILIUM_POLICY, "shop", "p")
        await follower.until(lambda: ref in follower.state.policies)
        server.absent = {CILIUM}
        server.cut()
        await follower.until(lambda: ref not in follower.state.policies)


async def test_a_kind_that_is_missing_for_a_moment_loses_nothing(server: ApiServer) -> None:
    server.put(kubernetes.cilium_policy("p", namespace="shop"))
    async with following(source(server, Timing(confirm_s=0.3, max_retry_s=0.1))) as follower:
        await follower.until(lambda: follower.synced)
        said = follower.said
        server.absent = {CILIUM}
        asked = server.count(CILIUM, watch=True)
        server.cut()
        await follower.until(lambda: server.count(CILIUM, watch=True) > asked)
        server.absent = set()
        await follower.until(lambda: server.count(CILIUM, watch=False) > 1)
        assert follower.state.policies
        assert follower.said <= said + 1


async def test_a_needed_kind_that_is_refused_is_a_problem_with_a_remedy(server: ApiServer) -> None:
    server.faults.refuse = {PODS: 403}
    async with following(source(server)) as follower:
        await follower.until(lambda: follower.source.problems)
        assert "403 refused for a test: let the agent list and watch it" in str(follower.source.problems[0])
        assert not follower.synced
        server.faults.refuse = {}
        await follower.until(lambda: follower.synced)
        await follower.until(lambda: not follower.source.problems)


async def test_an_overloaded_server_is_left_alone_as_long_as_it_asks(server: ApiServer) -> None:
    server.faults.refuse, server.faults.retry_after_s = {PODS: 429}, 1
    async with following(source(server)) as follower:
        await follower.until(lambda: server.count(PODS, watch=False))
        await asyncio.sleep(0.5)
        assert server.count(PODS, watch=False) == 1
        server.faults.refuse = {}
        await follower.until(lambda: follower.synced)


async def test_a_new_token_is_read_when_the_old_one_is_refused(server: ApiServer) -> None:
    server.put(*pods(1))
    async with following(source(server)) as follower:
        await follower.until(lambda: follower.synced)
        server.token = "another"  # noqa: S105
        server.cut()
        await follower.until(lambda: any("401" in str(each) for each in follower.source.problems))
        server.kubeconfig()
        server.put(*pods(2))
        await follower.until(lambda: "p2" in follower.pods())


@pytest.fixture
def token(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The token's file of a pod of this server's cluster."""
    file = tmp_path / "token"
    file.write_text(server.token)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(file))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(server.folder / "server" / "ca.crt"))
    return file


def test_a_token_that_is_empty_for_a_moment_is_a_problem_and_no_more(
    token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = Credentials(in_cluster=True)
    credentials.access()
    later = datetime.now() + timedelta(minutes=2)  # a token is read again after one minute
    clock = SimpleNamespace(datetime=SimpleNamespace(now=lambda: later), timedelta=timedelta)
    monkeypatch.setattr(incluster_config, "datetime", clock)
    token.write_text("")
    with pytest.raises(ConfigError, match="Token file exists but empty"):
        credentials.access()
    token.write_text("new")
    assert credentials.access().headers["Authorization"].endswith(" new")


async def test_in_a_pod_the_service_account_is_used_and_its_new_token(server: ApiServer, token: Path) -> None:
    server.put(*pods(1))
    async with following(KubernetesSource(Credentials(in_cluster=True), QUICK)) as follower:
        await follower.until(lambda: follower.synced and "p1" in follower.pods())
        server.token = "another"  # noqa: S105 - of a test
        token.write_text(server.token)
        server.cut()
        server.put(*pods(2))
        await follower.until(lambda: "p2" in follower.pods())


async def test_an_object_that_cannot_be_used_costs_itself(server: ApiServer) -> None:
    good, bad = pods(1), kubernetes.pod("p2", "10.0.0.2", labels={"a": "b"})
    server.put(*good, bad)
    async with following(source(server)) as follower:
        await follower.until(lambda: follower.synced)
        server.put(bad | {"spec": {"nodeName": 7}}, *pods(3))
        await follower.until(lambda: follower.source.problems and "p3" in follower.pods())
        assert "Pod default/p2: Expected `str`, got `int` - at `$.spec.nodeName`" in str(follower.source.problems[0])
        assert follower.pods() == {"p1", "p2", "p3"}
        server.put(bad)
        await follower.until(lambda: not follower.source.problems)


async def test_it_is_whole_when_of_every_object_something_is_known(server: ApiServer) -> None:
    bad = kubernetes.pod("p2", "10.0.0.2") | {"spec": {"nodeName": 7}}
    server.put(*pods(1), bad)
    async with following(source(server)) as follower:
        await follower.until(lambda: follower.synced and "p1" in follower.pods())
        assert not follower.whole, "what p2 would say is not known"
        server.put(*pods(2))
        await follower.until(lambda: follower.whole and "p2" in follower.pods())
        server.put(bad, *pods(3))
        await follower.until(lambda: follower.source.problems and "p3" in follower.pods())
        assert follower.whole, "what p2 says is known from before"
        server.put(kubernetes.pod("p4") | {"spec": 4})
        server.put(*pods(5))
        await follower.until(lambda: "p5" in follower.pods())
        assert not follower.whole
        server.delete(kubernetes.pod("p4"))
        await follower.until(lambda: follower.whole)


async def test_what_cannot_be_read_is_forgotten_when_it_goes_while_nobody_hears(server: ApiServer) -> None:
    server.put(*pods(1), kubernetes.pod("p2") | {"spec": 4})
    async with following(source(server)) as follower:
        await follower.until(lambda: follower.synced and follower.source.problems)
        server.stop()
        server.delete(kubernetes.pod("p2"))
        server.compact()
        server.start()
        await follower.until(lambda: follower.whole and not follower.source.problems)
        assert follower.pods() == {"p1"}


async def test_nulls_mean_not_given(server: ApiServer) -> None:
    document = kubernetes.endpoint_slice("s", "web", [])
    server.put(document | {"endpoints": None, "ports": None})
    async with following(source(server)) as follower:
        await follower.until(lambda: follower.synced)
        assert follower.state.slices["default", "s"].endpoints == ()


@pytest.mark.parametrize(
    "line", [b"nonsense", b'{"type":"ADDED","object":3}', b'{"type":"ADDED"}', b"\xff", b"[" * 9999]
)
async def test_after_words_that_nobody_understands_it_lists_again(server: ApiServer, line: bytes) -> None:
    async with following(source(server)) as follower:
        await follower.until(lambda: follower.synced and server.count(PODS, watch=True) == 1)
        server.say(PODS, line)
        await follower.until(lambda: server.count(PODS, watch=False) == 2)
        server.put(*pods(1))
        await follower.until(lambda: "p1" in follower.pods())


def test_a_kubeconfig_that_cannot_be_used_is_said_at_once(tmp_path: Path, server: ApiServer) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        Credentials(kubeconfig=tmp_path / "nowhere").access()
    with pytest.raises(ConfigError, match="context other: cannot be used"):
        Credentials(kubeconfig=server.kubeconfig(), context="other").access()
    (tmp_path / "empty").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        Credentials(kubeconfig=tmp_path / "empty").access()
    with pytest.raises(ConfigError, match="service account: cannot be used"):
        Credentials(in_cluster=True).access()


def test_the_same_tls_context_serves_until_a_file_changes(server: ApiServer) -> None:
    credentials = Credentials(kubeconfig=server.kubeconfig())
    first = credentials.access()
    assert credentials.access().tls is first.tls
    assert first.headers["Authorization"] == f"Bearer {server.token}"
    file = server.folder / "server" / "ca.crt"
    file.touch()
    assert credentials.access().tls is not first.tls
