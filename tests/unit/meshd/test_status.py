"""`meshd status` against a socket that answers as a daemon does."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from meshd.socket import serve
from meshd.status import age_text, status

KIND = {"offered": 4, "accepted": 3, "rejected": 0, "quarantined": 1, "over_quota": 0, "synced_age_s": 1.0}
FRESH = {"state": "fresh", "lost_age_s": None, "rtt_ms": 0.123, "loss": 0.0}
STALE = {"state": "stale", "lost_age_s": 75.0, "rtt_ms": None, "loss": 1.0}


def cluster(name: str, state: str = "ready", **more: object) -> dict[str, object]:
    return {
        "cluster": name,
        "is_local": name == "cluster1",
        "link": {"state": state, "age_s": 75.0},
        "last_event_age_s": None,
        "certificate_days_left": 89,
        "presence": FRESH if state == "ready" else STALE,
        "server_certificate": {"days_left": 30, "by_wildcard": True},
        "kinds": dict.fromkeys(("nodes", "services", "identities", "ip"), KIND | more),
    }


def daemon(state: str, *findings: str) -> dict[str, object]:
    target = {"name": "maps", "in_sync": True, "in_sync_age_s": 7300.0, "failing": 0, "realised": {"md_ipcache": 2}}
    return {
        "instance": "cluster1.n1",
        "state": state,
        "findings": list(findings),
        "clusters": [cluster("cluster1"), cluster("cluster2", "disconnected", synced_age_s=None)],
        "targets": [target],
        "events": {"loaded": 3.0, "reconciled": None},
    }


async def run(folder: Path, answer: dict[str, object], *arguments: str) -> Result:
    """Runs the command while the socket answers."""
    async with serve(folder / "cluster1.n1" / "daemon.sock", {"/v1/status": lambda: answer}):
        return await asyncio.to_thread(CliRunner().invoke, status, ["--run-dir", str(folder), *arguments])


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("degraded", 1), ("broken", 2)])
async def test_the_exit_code_is_the_state(tmp_path: Path, state: str, code: int) -> None:
    assert (await run(tmp_path, daemon(state))).exit_code == code


async def test_the_memory_of_maglev_tables_is_shown_where_there_are_some(tmp_path: Path) -> None:
    for tables, shown in ((3, True), (0, False)):
        maglev = {"tables": tables, "entries": 251, "bytes": tables * 251 * 4}
        result = await run(tmp_path, daemon("ok") | {"maglev": maglev})
        assert ("  Maglev: 3 tables of 251 entries, 3 KiB in the kernel" in result.output.splitlines()) is shown


async def test_the_table_has_the_worst_first_and_fits(tmp_path: Path) -> None:
    shown = (await run(tmp_path, daemon("degraded", "cluster2: nobody answers"))).output
    lines = [line.rstrip() for line in shown.splitlines()]
    assert lines[:3] == [
        "cluster1.n1: degraded",
        "  ! cluster2: nobody answers",
        " CLUSTER        LINK         FOR STATE      EVENT   NODES SVCS IDS IPS REFUSED RTT     CERT",
    ]
    words = ["cluster2", "disconnected", "75s", "STALE(75s)", "unknown", *["~3"] * 4, "4", "unknown", "89d"]
    assert lines[3].split() == words
    assert lines[4].startswith(" cluster1 (own) ready")
    assert lines[5:] == ["  maps: in sync for 2h; md_ipcache 2", "  not yet: reconciled"]
    assert max(map(len, lines)) <= 100


async def test_255_clusters_fit_a_screen_and_the_rest_is_counted(tmp_path: Path) -> None:
    answer = daemon("degraded", *(f"cluster{n}: {'nobody answers ' * 20}" for n in range(20)))
    worst = [cluster(f"a-rather-long-name-of-a-cluster{n}", "disconnected") for n in range(9)]
    answer["clusters"] = [cluster(f"cluster{n}") for n in range(1, 247)] + worst
    lines = (await run(tmp_path, answer)).output.rstrip().splitlines()
    assert len(lines) <= 25
    assert max(map(len, map(str.rstrip, lines))) <= 100
    assert "! and 14 more: --verbose" in lines[7]
    assert [line.split()[1] for line in lines[9:18]] == ["disconnected"] * 9
    assert lines[19].strip() == "and 245 more: 245 ready, fresh"
    assert (await run(tmp_path, answer, "--verbose")).output.count("wildcard") == 255


async def test_what_stands_below_the_clusters_counts_too(tmp_path: Path) -> None:
    """Nothing of what a busy node has to say makes it longer than a screen."""
    answer = daemon("degraded", *(f"cluster{n}: nobody answers" for n in range(20)))
    answer["clusters"] = [cluster(f"cluster{n}") for n in range(1, 256)]
    maps = {f"md_map_{n}": n for n in range(30)}
    names = ("policy", "maps", "pods", "routes")
    answer["targets"] = [
        {"name": name, "in_sync": True, "in_sync_age_s": 1.0, "failing": 0, "realised": maps} for name in names
    ]
    answer |= {
        "routing": {"routes": dict.fromkeys(("local", "same-cluster", "tunnel", "direct", "unreachable"), 100)},
        "maglev": {"tables": 3, "entries": 251, "bytes": 4096},
        "no_interface": [{"address": f"10.0.0.{n}"} for n in range(10)],
    }
    lines = (await run(tmp_path, answer)).output.rstrip().splitlines()
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 100
    assert any(line.startswith("  and 24") for line in lines), "the rest of the clusters is counted"
    assert any(line.endswith("… --verbose") for line in lines)
    assert "md_map_29 29" in (await run(tmp_path, answer, "--verbose")).output


async def test_verbose_has_lag_and_what_was_offered(tmp_path: Path) -> None:
    quick = cluster("cluster2") | {"lag": {"p50_ms": 0.512, "p99_ms": 3.25, "changes": 9}}
    result = await run(tmp_path, daemon("ok") | {"clusters": [quick, cluster("cluster3")]}, "--verbose")
    lines = result.output.splitlines()
    assert lines[1].split()[-2:] == ["LAG", "OFFERED"]
    assert [line.split()[-2:] for line in lines[2:4]] == [["0.5/3.2ms", "16"], ["unknown", "16"]]


async def test_a_warning_is_shown_and_no_fault(tmp_path: Path) -> None:
    odd = cluster("cluster2") | {"warnings": ["unknown key `meshd.colour` is ignored"]}
    result = await run(tmp_path, daemon("ok") | {"clusters": [odd]})
    assert "  ! cluster2: unknown key `meshd.colour` is ignored (a warning)" in result.output.splitlines()
    assert result.exit_code == 0


async def test_wait_ends_when_all_is_ok_or_the_time_is_over(tmp_path: Path) -> None:
    answer = daemon("degraded")
    result = await run(tmp_path, answer, "--wait", "--timeout=0.1")
    assert (result.exit_code, "not ok within 0.1 s" in result.output) == (1, True)
    later = asyncio.get_running_loop().call_later(0.2, lambda: answer.update(state="ok"))
    assert (await run(tmp_path, answer, "--wait", "--timeout=30")).exit_code == 0
    later.cancel()


async def test_json_is_what_the_daemon_said(tmp_path: Path) -> None:
    answer = daemon("ok")
    assert json.loads((await run(tmp_path, answer, "-o", "json")).output) == [answer]


def test_nobody_there_is_broken(tmp_path: Path) -> None:
    result = CliRunner().invoke(status, ["--run-dir", str(tmp_path)])
    assert result.exit_code == 2
    assert "is `meshd daemon` running" in result.output


def test_an_instance_that_does_not_answer_is_broken_and_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(status, ["--run-dir", str(tmp_path), "--instance", "cluster1.n1"])
    assert result.exit_code == 2
    assert "cluster1.n1: broken" in result.output


def test_ages_are_short_and_unknown_is_said() -> None:
    ages = (None, 0.4, 119, 120, 7200, 400_000)
    assert [age_text(age) for age in ages] == ["unknown", "0s", "119s", "2m", "2h", "5d"]
