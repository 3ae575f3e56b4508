from pathlib import Path
from typing import Any

from meshd.controlplane import read_all, summarise_agent, summarise_proxy


def agent(**changes: Any) -> dict[str, Any]:
    status: dict[str, Any] = {
        "etcd": {"phase": "writing", "age_s": 12.3, "error": ""},
        "source": {"bad": []},
        "published": {"keys": {"nodes": 2, "services": 0, "meshd/v1/services": 1}, "refused": {}},
        "degraded": [],
    }
    return status | changes


def proxy(**changes: Any) -> dict[str, Any]:
    status: dict[str, Any] = {
        "upstream": {"state": "following", "age_s": 3.0, "problem": ""},
        "tls": {"problem": "", "days_left": 89},
        "users": {"problem": ""},
        "keys": 9,
        "revision": 41,
        "peers": [{}],
        "watchers": 3,
    }
    return status | changes


def test_an_agent_that_publishes_is_ok() -> None:
    summary = summarise_agent("c1", agent())
    assert (summary.state, summary.findings) == ("ok", ())
    assert summary.line == "publishing for 12s; nodes 2, meshd/v1/services 1"


def test_what_an_agent_cannot_read_or_publish_is_a_finding() -> None:
    bad = agent(source={"bad": [f"file{n}.yaml:1: is not YAML" for n in range(9)]})
    summary = summarise_agent("c1", bad)
    assert summary.state == "degraded"
    assert summary.findings[0] == "file0.yaml:1: is not YAML"
    assert summary.findings[-1].startswith("… and 4 more")
    degraded = agent(degraded=[{"where": "Service default/web", "reasons": ["affinity 'x' is unknown"]}])
    assert summarise_agent("c1", degraded).findings == ("Service default/web: affinity 'x' is unknown",)


def test_another_cluster_in_the_same_etcd_is_a_finding() -> None:
    etcd = {"phase": "writing", "age_s": 1.0, "error": "", "rival": "this etcd belongs to cluster 'c2'"}
    assert summarise_agent("c1", agent(etcd=etcd)).findings == ("this etcd belongs to cluster 'c2'",)


def test_what_keeps_imports_away_is_a_finding() -> None:
    imported = {
        "clusters": {"c2": {"link": "ready", "reason": ""}, "c3": {"link": "rejected", "reason": "TLS: no"}},
        "files": {"c4": "is not YAML"},
        "problems": {"default/db": "403 forbidden"},
    }
    summary = summarise_agent("c1", agent(imported=imported))
    assert summary.state == "degraded"
    assert summary.findings == (
        "imports from c3: rejected TLS: no",
        "imports from c4: is not YAML",
        "slices of default/db: 403 forbidden",
    )
    assert summarise_agent("c1", agent(imported=None)).state == "ok"


def test_a_standby_is_ok_and_an_agent_without_etcd_is_not() -> None:
    assert summarise_agent("c1", agent(etcd={"phase": "standby", "age_s": 1.0, "error": ""})).state == "ok"
    away = summarise_agent("c1", agent(etcd={"phase": "connecting", "age_s": 1.0, "error": "refused"}))
    assert (away.state, away.findings) == ("degraded", ("etcd: refused",))


def test_a_proxy_says_when_its_etcd_is_away() -> None:
    assert summarise_proxy("c1", proxy()).line == "etcd following for 3s; 9 keys at revision 41, 1 readers, 3 watches"
    away = summarise_proxy("c1", proxy(upstream={"state": "away", "age_s": 9.0, "problem": "refused"}))
    assert (away.state, away.findings) == ("degraded", ("etcd: refused",))


def test_a_proxy_says_when_its_certificate_ends() -> None:
    soon = summarise_proxy("c1", proxy(tls={"problem": "", "days_left": 9}))
    text = "tls: the server's certificate ends in 9 days: `meshd certs rotate`"
    assert (soon.state, soon.findings) == ("degraded", (text,))
    ended = summarise_proxy("c1", proxy(tls={"problem": "", "days_left": -1}))
    assert ended.findings == ("tls: the server's certificate has ended: `meshd certs rotate`",)


def test_a_socket_that_nobody_answers_is_broken(tmp_path: Path) -> None:
    (tmp_path / "c1").mkdir()
    (tmp_path / "c1" / "agent.sock").touch()
    (summary,) = read_all(tmp_path)
    assert (summary.instance, summary.process, summary.state) == ("c1", "agent", "broken")
    assert list(read_all(tmp_path, "other")) == []
