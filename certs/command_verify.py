"""`meshd certs verify`: says what is wrong with certificate files, or why a proxy refuses a reader."""

import dataclasses
import ipaddress
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape

from certs.checks import Finding, Purpose
from certs.files import Files, check_directory, check_files
from certs.names import CertsError, check_host_name
from certs.options import Refusal, directory
from certs.probe import probe

Results = Mapping[str, list[Finding]]

_OK, _DEGRADED, _BROKEN = 0, 1, 2
_MAX_PORT = 65535


@click.command("verify")
@directory("--dir", "Verify everything in a directory as `issue` fills it.")
@directory("--folder", "Verify one folder with tls.crt, tls.key and ca.crt, as in a Kubernetes secret.")
@click.option("--cert", type=click.Path(path_type=Path), help="Verify this certificate (PEM) …")
@click.option("--key", type=click.Path(path_type=Path), help="… with this key …")
@click.option("--ca", type=click.Path(path_type=Path), help="… against these CAs.")
@click.option(
    "--as",
    "purpose",
    type=click.Choice([purpose.value for purpose in Purpose]),
    help="What it is for; as its name says if not given.",
)
@click.option("--name", default="", help="DNS name or IP that a server must answer to, e.g. cluster1.mesh.cilium.io.")
@click.option("--connect", metavar="HOST:PORT", help="Connect to a proxy as this client; needs --name.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def verify_command(
    dir: Path | None,
    folder: Path | None,
    cert: Path | None,
    key: Path | None,
    ca: Path | None,
    purpose: str | None,
    name: str,
    connect: str | None,
    output: str,
) -> None:
    """Say what is wrong with certificates, and what to do. Exit code 0: nothing, 1: they end soon, 2: they will not do.

    Give --dir, or --folder, or --cert with --key and --ca; with --connect the probe presents that certificate to a
    proxy and says what each side holds against the other.
    """
    now = datetime.now(UTC)
    try:
        if dir:
            if connect or folder or cert or key or ca or purpose or name:
                raise Refusal("--dir goes with no other option but --output: it verifies all that is there")
            results: Results = check_directory(dir, now=now)
            if not results:
                raise Refusal(f"no certificate is in {dir}: name the directory that holds the folders of `issue`")
        else:
            files = _files(folder, cert, key, ca)
            subject = str(folder or cert)
            wanted = Purpose(purpose) if purpose else None
            if connect:
                results = _probe(connect, files, name, now=now)
            else:
                results = {subject: check_files(files, now=now, purpose=wanted, name=name, subject=subject)}
    except (CertsError, OSError) as error:
        raise Refusal.of(error) from error
    if output == "json":
        plain = {subject: [dataclasses.asdict(one) for one in found] for subject, found in results.items()}
        click.echo(json.dumps(plain, indent=2))
    else:
        _print(results)
    sys.exit(_exit_code(results))


def _files(folder: Path | None, cert: Path | None, key: Path | None, ca: Path | None) -> Files:
    if folder and not (cert or key or ca):
        return Files.of(folder)
    if cert and key and ca and not folder:
        return Files(cert, key, ca)
    raise Refusal("give --dir, or --folder, or all of --cert, --key and --ca")


def _probe(connect: str, files: Files, name: str, *, now: datetime) -> Results:
    host, colon, port = connect.rpartition(":")
    host = host.strip("[]")
    if not (colon and _is_host(host) and port.isdecimal() and int(port) <= _MAX_PORT):
        raise Refusal(f"--connect {connect!r}: give HOST:PORT, for example 172.18.1.10:2379")
    if not name:
        raise Refusal("--connect needs --name: the name that the proxy must answer to, CLUSTER.mesh.cilium.io")
    if not _is_host(name):
        raise Refusal(f"--name {name!r}: give a DNS name without wildcard, or an IP address")
    probed = probe(host, int(port), files, name=name, now=now)
    subject = f"{connect} ({probed.peer})" if probed.peer else connect
    return {subject: probed.findings}


def _is_host(text: str) -> bool:
    """Whether it can be asked for: a DNS name or an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        try:
            check_host_name(text)
        except CertsError:
            return False
    return True


def _print(results: Results) -> None:
    console = Console(soft_wrap=True, highlight=False)
    for subject, found in results.items():
        broken = any(not one.is_warning for one in found)
        mark = "[red]✗[/]" if broken else "[yellow]![/]" if found else "[green]✓[/]"
        console.print(f"{mark} {escape(subject)}")
        for one in found:
            console.print(f"    {one.fault}: {escape(one.text)}")
            console.print(f"      → {escape(one.remedy)}")


def _exit_code(results: Results) -> int:
    found = [one for findings in results.values() for one in findings]
    if any(not one.is_warning for one in found):
        return _BROKEN
    return _DEGRADED if found else _OK
