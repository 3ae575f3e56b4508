"""Every finding says what, since when, why, and what to look at next."""

import re
from typing import Any

import pytest

from meshd.daemon.clusterfindings import cluster_findings

KIND = {"over_quota": 0, "quarantined": 0, "rejected": 0, "offered": 5, "quarantine": {}, "reasons": {}}
FINE: dict[str, Any] = {
    "cluster": "c2",
    "link": {"state": "ready", "age_s": 9.0, "reason": ""},
    "slices_only": False,
    "kinds": {"ip": KIND | {"last_rejected": None}},
    "heartbeat_age_s": 1.0,
    "synced": True,
    "server_certificate": None,
    "certificate_days_left": 30,
    "presence": {
        "frozen": "",
        "state": "fresh",
        "state_age_s": 9.0,
        "lost_age_s": None,
        "reason": "",
        "answers": True,
        "probed_nodes": 3,
    },
}
BAD_IP = {"name": "20.0.0.7", "reason": "not-json", "detail": "ip 20.0.0.7: malformed", "age_s": 4.0}


def presence(**more: object) -> dict[str, Any]:
    return {"presence": FINE["presence"] | more}


def kind(**more: object) -> dict[str, Any]:
    return {"kinds": {"ip": KIND | {"last_rejected": None} | more}}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, None),
        ({"link": {"state": "waiting", "age_s": 3.0, "reason": "for ip"}}, "control link waiting for 3 s: for ip"),
        (
            {"link": {"state": "rejected", "age_s": 3.0, "reason": "no"}},
            "link rejected for 3 s: no: `meshd certs",
        ),
        ({"link": {"state": "disconnected", "age_s": 3.0, "reason": "no"}}, "disconnected for 3 s: no: does its proxy"),
        ({"slices_only": True}, "EndpointSlices only, which meshd does not read.*; let it export"),
        (kind(over_quota=7), "ip over its quota: at least 7 records are left out; .*`meshd.quotas`"),
        (kind(quarantined=2, quarantine={"own-address": 2}), "2 ip in quarantine: own-address 2: `meshd explain ip`"),
        (
            kind(rejected=1, reasons={"not-json": 1}, last_rejected=BAD_IP),
            "1 of 5 ip records rejected: not-json 1; the last 4 s ago: ip 20.0.0.7: malformed",
        ),
        (presence(frozen="missing: x"), "frozen, nothing of it is deleted: missing: x: does its agent run"),
        (
            presence(state="withdrawn", reason="silent"),
            "withdrawn for 9 s: silent: if it is gone for good",
        ),
        (presence(state="stale", lost_age_s=70.0, reason="its nodes answer"), r"STALE\(70 s\): its nodes answer"),
        (presence(answers=False), "none of its 3 probed nodes answers through the tunnel: `meshd node list`"),
        ({"heartbeat_age_s": 300.0}, r"last heartbeat 300 s ago: its agent may be dead \(`meshd status` there\)"),
        (
            {"server_certificate": {"days_left": 3}},
            "its server's certificate ends in 3 days: `meshd certs",
        ),
        ({"certificate_days_left": -1}, "our certificate ends in -1 days: `meshd certs rotate`"),
    ],
)
def test_a_finding_has_its_reason_and_what_to_do(changed: dict[str, Any], expected: str | None) -> None:
    found = cluster_findings(FINE | changed)
    if expected is None:
        assert found == []
    else:
        (finding,) = found
        assert re.match(f"c2: .*{expected}", finding)
