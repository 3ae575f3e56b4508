"""Objects with any one field spoiled: nothing crashes, and what is published all the same can be read."""

import copy
import json
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from identity.allocation import Allocator
from identity.numbering import identity_range
from meshd.agent.publish.publisher import Publisher
from meshd.agent.publish.scope import Scope
from meshd.agent.sources.documents import parse_file
from meshd.agent.state import Changes, LocalState
from tests.support import kubernetes
from wire import codec, keys

PORTS: list[kubernetes.Document] = [
    {"name": "http", "port": 80, "targetPort": "web"},
    {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 5353},
]
POD_PORTS: list[kubernetes.Document] = [{"name": "web", "containerPort": 80}]
GOOD: list[kubernetes.Document] = [
    kubernetes.namespace("default", labels={"team": "x"}),
    kubernetes.node("node-1", pod_cidrs=["10.0.0.0/24", "fd00:10:1::/64"], annotations={"meshd.io/x": "y"}),
    kubernetes.pod("p", "10.0.0.1", "fd00:10:1::1", labels={"app": "web"}, ports=POD_PORTS),
    kubernetes.service("web", "30.1.1.1", "fd00:30::1", selector={"app": "web"}, ports=PORTS),
    kubernetes.service("db", "30.1.1.2"),
    kubernetes.policy("p", ingress=[{"from": [{"podSelector": {}}]}]),
    kubernetes.cilium_policy("p", ingress=[{"fromEntities": ["cluster"]}]),
    kubernetes.endpoint_slice("db-1", "db", [{"addresses": ["10.0.0.9"], "zone": "a", "conditions": {"ready": True}}]),
]
REST: list[kubernetes.Document] = [
    kubernetes.node("rest", "172.18.9.9", pod_cidrs=["10.9.0.0/24"]),
    kubernetes.pod("p", "10.9.0.1", namespace="rest", labels={"app": "rest"}, node="rest"),
    kubernetes.service("rest", "30.9.9.9", namespace="rest", selector={"app": "rest"}),
    kubernetes.policy("p", namespace="rest"),
]
UNTOUCHED = {
    "cilium/state/ip/v1/default/10.9.0.1",
    "cilium/state/nodes/v1/c1/rest",
    "cilium/state/services/v1/c1/rest/rest",
    "meshd/v1/policies/NetworkPolicy/rest/p",
    "meshd/v1/services/rest/rest",
}
JUNK: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=6),
    st.sampled_from(["", "10.0.0.256", "fe80::1%eth0", "10.0.0.0/33", "None", "/", ";", "k8s:a=b;", "ExternalName"]),
    st.just([]),
    st.just({}),
    st.just({"": ""}),
    st.just([None, 1, "x", {}]),
)


def paths(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document, the document itself excepted."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, below in inner for path in [(*above, key), *paths(below, (*above, key))]]


@st.composite
def spoiled(draw: st.DrawFn) -> list[kubernetes.Document]:
    documents = copy.deepcopy(GOOD)
    for _ in range(draw(st.integers(1, 3))):
        document = draw(st.sampled_from(documents))
        *above, last = draw(st.sampled_from(paths(document) or [("kind",)]))
        place: Any = document
        with suppress(KeyError, IndexError, TypeError):
            for key in above:
                place = place[key]
            place[last] = copy.deepcopy(draw(JUNK))
    return documents


@settings(max_examples=400)
@given(spoiled())
def test_what_is_published_of_spoiled_objects_can_be_read_and_the_rest_goes_on(
    documents: list[kubernetes.Document],
) -> None:
    content = parse_file("f.yaml", "\n---\n".join(map(json.dumps, [*documents, *REST])).encode())
    identities = Allocator(identity_range(1))
    state = LocalState()
    publisher = Publisher(Scope(cluster="c1", cluster_id=1), state, identities)
    publisher.mark(state.apply(Changes(content.objects, synced=True)))
    published: set[str] = set()
    scope = codec.Scope("c1", 1, identity_range(1))
    while publisher.is_dirty or publisher.wanted():
        for labels in publisher.wanted():
            number = identities.propose(labels)
            identities.settle(number, labels)
            publisher.settled([number])
        for key, value in publisher.compute(100).items():
            parsed = keys.parse(key)
            if value is not None:
                codec.decode(parsed.kind, parsed.name, value, scope)
                published.add(key)
    assert published >= UNTOUCHED
