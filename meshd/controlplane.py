"""What the agents and proxies on this machine say of themselves, summed up for `meshd status`. Pure but for asking."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from meshd.socket import SocketError, get

Status = dict[str, Any]
FINDINGS_MAX = 5
CERTIFICATE_MIN_DAYS = 14
BAD_LINKS = ("rejected", "disconnected")


@dataclass(frozen=True, slots=True)
class Summary:
    """One process: `state` is ok, degraded or broken; `line` says in a sentence how it is; findings what is wrong."""

    instance: str
    process: str
    state: str
    line: str
    findings: tuple[str, ...] = ()

    def as_json(self) -> Status:
        return asdict(self)


def read_all(run_dir: Path, instance: str | None = None) -> Iterator[Summary]:
    """A summary for each agent and proxy that has a socket, sorted by instance."""
    for name, summarise in (("agent", summarise_agent), ("proxy", summarise_proxy)):
        for path in sorted(run_dir.glob(f"{instance or '*'}/{name}.sock")):
            try:
                status = get(path, "/v1/status")
            except SocketError as error:
                yield Summary(path.parent.name, name, "broken", "does not answer", (str(error),))
            else:
                yield summarise(path.parent.name, status)


def summarise_agent(instance: str, status: Status) -> Summary:
    """Of an agent's /v1/status."""
    etcd, source, published = status["etcd"], status["source"], status["published"]
    findings = [f"etcd: {etcd['error']}"] if etcd["error"] else []
    findings += [etcd["rival"]] if etcd.get("rival") else []
    findings += source["bad"]
    findings += [f"{entry['where']}: {reason}" for entry in status["degraded"] for reason in entry["reasons"]]
    findings += [f"etcd refuses {key}: {reason}" for key, reason in published["refused"].items()]
    findings += _of_imports(status.get("imported") or {})
    counts = ", ".join(f"{kind} {count}" for kind, count in published["keys"].items() if count)
    role = "publishing" if etcd["phase"] == "writing" else etcd["phase"]
    healthy = etcd["phase"] in ("writing", "standby") and not findings
    line = f"{role} for {etcd['age_s']:.0f}s; {counts or 'nothing published'}"
    return Summary(instance, "agent", "ok" if healthy else "degraded", line, _bounded(findings))


def _of_imports(imported: Status) -> list[str]:
    """What keeps headless services from having the backends of all clusters."""
    links = imported.get("clusters", {}).items()
    lost = [
        f"imports from {name}: {link['link']} {link['reason']}" for name, link in links if link["link"] in BAD_LINKS
    ]
    files = [f"imports from {name or 'the folder'}: {why}" for name, why in imported.get("files", {}).items()]
    return lost + files + [f"slices of {name}: {reason}" for name, reason in imported.get("problems", {}).items()]


def summarise_proxy(instance: str, status: Status) -> Summary:
    """Of a proxy's /v1/status."""
    upstream = status["upstream"]
    problems = [("etcd", upstream["problem"]), ("tls", status["tls"]["problem"]), ("users", status["users"]["problem"])]
    findings = [f"{part}: {problem}" for part, problem in problems if problem]
    days = status["tls"]["days_left"]
    if days < CERTIFICATE_MIN_DAYS:
        ends = f"ends in {days} days" if days >= 0 else "has ended"
        findings.append(f"tls: the server's certificate {ends}: `meshd certs rotate`")
    line = (
        f"etcd {upstream['state']} for {upstream['age_s']:.0f}s; {status['keys']} keys at revision "
        f"{status['revision']}, {len(status['peers'])} readers, {status['watchers']} watches"
    )
    return Summary(instance, "proxy", "degraded" if findings else "ok", line, _bounded(findings))


def _bounded(findings: list[str]) -> tuple[str, ...]:
    if len(findings) <= FINDINGS_MAX:
        return tuple(findings)
    return (*findings[:FINDINGS_MAX], f"… and {len(findings) - FINDINGS_MAX} more: see /v1/status of its socket")
