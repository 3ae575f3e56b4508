"""`meshd testbed`: up, down, status, exec, check, demo, and the verbs that change what runs."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.table import Table

from certs.names import CertsError
from meshd.console import standard_console
from meshd.testbed import check, layout, netns, process
from meshd.testbed.cgroup import CgroupError
from meshd.testbed.demo.story import run_demo
from meshd.testbed.netns import NetworkError
from meshd.testbed.objects import is_ready, read_manifest
from meshd.testbed.process import StartError
from meshd.testbed.testbed import DEFAULT_CLUSTERS, Testbed

WIDTH = 140  # columns where there is no terminal
EXIT_FAILED, EXIT_BROKEN, EXIT_USAGE = 1, 2, 3
EXIT_NO_PROGRAM = 127  # as shells say it
Function = Callable[..., Any]


@click.group()
def testbed() -> None:
    """Clusters on this machine: namespaces for nodes and pods, real processes for everything of meshd's."""


def _with_testbed(function: Function) -> Function:
    """Adds --tag and --clusters, checks the machine, turns errors into one sentence and an exit code."""

    @click.option(
        "--tag", default="mesh", show_default=True, help="Name of the testbed; several can stand side by side."
    )
    @click.option(
        "--clusters", default="", help=f"Clusters, by commas.  [default: what stands, or {','.join(DEFAULT_CLUSTERS)}]"
    )
    @wraps(function)
    def wrapped(*args: object, tag: str, clusters: str, **kwargs: object) -> object:
        _require_machine()
        with _explained():
            return function(Testbed(tag, clusters.split(",") if clusters else None), *args, **kwargs)

    return wrapped


@contextmanager
def _explained() -> Iterator[None]:
    """Ends the program with one sentence for errors that are no bugs."""
    try:
        yield
    except KeyError as error:
        _fail(str(error.args[0]), EXIT_USAGE)
    except (StartError, NetworkError, CgroupError, CertsError, OSError) as error:
        _fail(str(error), EXIT_BROKEN)


def _require_machine() -> None:
    problem = check.first_problem()
    if problem:
        _fail(problem, EXIT_USAGE)


def _fail(message: str, code: int) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(code)


@testbed.command("check")
def check_command() -> None:
    """Says in one sentence why no testbed can stand here (exit 3), or nothing."""
    _require_machine()


@testbed.command()
@click.option("--no-mesh", is_flag=True, help="Nodes, pods and services only, none of meshd's processes.")
@_with_testbed
def up(bed: Testbed, no_mesh: bool) -> None:
    """Makes what is missing and waits until it is ready."""
    console = Console(stderr=True)
    with console.status("testbed", spinner="dots") as status:

        def progress(what: str) -> None:
            status.update(what)
            if not console.is_terminal:
                click.echo(f"testbed: {what}", err=True)

        try:
            bed.up(mesh=not no_mesh, progress=progress)
        except KeyboardInterrupt:
            tag = bed.layout.tag
            click.echo(f"testbed {tag} is half up: `meshd testbed down --tag {tag}` removes it, `up` goes on", err=True)
            raise
    click.echo(f"testbed {bed.layout.tag} is up; logs: {bed.layout.logs}")


@testbed.command()
@click.option("--tag", default="mesh", show_default=True, help="Name of the testbed.")
@click.option("--all", "every", is_flag=True, help="All testbeds of this machine, whoever started them.")
@click.option("--here", is_flag=True, help="All testbeds that run this copy of meshd.")
def down(tag: str, every: bool, here: bool) -> None:
    """Ends and removes everything that carries the tag, all clusters, also after a crash."""
    _require_machine()
    with _explained():
        beds = [Testbed(found.tag) for found in layout.standing()] if every or here else [Testbed(tag)]
        for bed in beds:
            if here and not bed.runs(sys.executable):
                continue
            stood = bed.layout.state.exists() or bool(netns.names(bed.layout.prefix))
            bed.down()
            if stood:
                click.echo(f"testbed {bed.layout.tag} is gone")
            else:
                standing = ", ".join(one.tag for one in layout.standing()) or "none"
                click.echo(f"there was no testbed {bed.layout.tag!r}; there are: {standing}", err=True)


@testbed.command()
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
@_with_testbed
def status(bed: Testbed, output: str) -> int:
    """What runs: processes and pods. Exit 1 if a process is missing, 2 if there is no testbed."""
    if not bed.layout.complete.exists():
        _fail(
            f"there is no testbed {bed.layout.tag!r}; start it with: meshd testbed up --tag {bed.layout.tag}",
            EXIT_BROKEN,
        )
    processes = [_process_row(bed, name) for name in bed.parts]
    pods = [row for cluster in bed.clusters for row in _pod_rows(bed, cluster.name)]
    if output == "json":
        click.echo(json.dumps({"tag": bed.layout.tag, "processes": processes, "pods": pods}, indent=2))
    else:
        _print_rows("processes", [{k: v for k, v in row.items() if k != "log"} for row in processes])
        _print_rows("pods", pods)
        click.echo(f"logs: {bed.layout.logs}; the daemons: meshd status --run-dir {bed.layout.run}")
    return 0 if all(row["state"] == "running" for row in processes) else EXIT_FAILED


def _process_row(bed: Testbed, name: str) -> dict[str, str]:
    part = bed.parts[name]
    record = process.load(bed.layout.processes, part.record_name)
    running = record is not None and record.alive
    return {
        "process": name,
        "state": "running" if running else "dead" if record else "not started",
        "pid": str(record.pid) if record and running else "",
        "log": str(bed.layout.log(part.record_name)),
    }


def _pod_rows(bed: Testbed, cluster: str) -> list[dict[str, str]]:
    kubelet = bed.kubelet(cluster)
    return [
        {
            "pod": f"{cluster}/{pod['metadata']['namespace']}/{pod['metadata']['name']}",
            "ip": pod["status"]["podIP"],
            "node": pod["spec"]["nodeName"],
            "state": "running" if all(record.alive for record in kubelet.records(pod)) else "dead",
            "ready": "yes" if is_ready(pod) else "no",
        }
        for pod in kubelet.objects.list("Pod")
    ]


def _print_rows(title: str, rows: list[dict[str, str]]) -> None:
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    standard_console(WIDTH).print(table)


@testbed.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("pod", metavar="CLUSTER/POD")
@click.argument("argv", metavar="CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
@_with_testbed
def exec_command(bed: Testbed, pod: str, argv: tuple[str, ...]) -> None:
    """Runs a program in a pod's network namespace and its node's cgroup, in place of this process."""
    cluster, name = _split(pod)
    bed.kubelet(cluster).place_of(bed.pod(cluster, name)).enter()
    try:
        os.execvp(argv[0], argv)  # noqa: S606 — the very point: no shell, the caller's program
    except FileNotFoundError:
        _fail(f"{argv[0]}: there is no such program on PATH", EXIT_NO_PROGRAM)


def _split(pod: str) -> tuple[str, str]:
    cluster, slash, name = pod.partition("/")
    if not slash:
        raise KeyError(f"{pod!r}: say CLUSTER/POD or CLUSTER/NAMESPACE/POD")
    return cluster, name


@testbed.command()
@click.argument("pod", metavar="CLUSTER/POD")
@click.argument("value", type=click.BOOL)
@_with_testbed
def ready(bed: Testbed, pod: str, value: bool) -> None:
    """Makes a pod ready or not, as if its readiness probe said so."""
    cluster, name = _split(pod)
    bed.set_ready(cluster, [name], ready=value)


@testbed.command()
@click.argument("cluster")
@click.argument("target", metavar="KIND/[NAMESPACE/]NAME")
@click.argument("annotation", metavar="KEY=VALUE|KEY-")
@_with_testbed
def annotate(bed: Testbed, cluster: str, target: str, annotation: str) -> None:
    """Sets an annotation, or removes it with a trailing minus, as kubectl does."""
    kind, slash, name = target.partition("/")
    key, equals, value = annotation.partition("=")
    if not slash or not (equals or key.endswith("-")):
        raise KeyError(
            "say KIND/NAME and KEY=VALUE or KEY-, for example: service/rebel-base io.cilium/global-service=true"
        )
    bed.annotate(cluster, kind.capitalize(), name, key if equals else key.removesuffix("-"), value if equals else None)


@testbed.command()
@click.argument("cluster")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_with_testbed
def apply(bed: Testbed, cluster: str, file: Path) -> None:
    """Adds the objects of a manifest; pods are started and become ready."""
    for obj in read_manifest(file):
        bed.apply(cluster, obj)


@testbed.command("add-pod")
@click.argument("pod", metavar="CLUSTER/POD")
@click.option("--like", required=True, help="The pod whose spec and labels it gets.")
@click.option("--ip", default=None, help="Its address; without it the first free one of the first node that fits.")
@_with_testbed
def add_pod(bed: Testbed, pod: str, like: str, ip: str | None) -> None:
    """Adds a pod that is like another one."""
    cluster, name = _split(pod)
    bed.add_pod(cluster, name, like=like, ip=ip)


@testbed.command("delete-pod")
@click.argument("pod", metavar="CLUSTER/POD")
@_with_testbed
def delete_pod(bed: Testbed, pod: str) -> None:
    """Ends a pod and removes it."""
    bed.delete_pod(*_split(pod))


@testbed.command()
@click.argument("name", metavar="PROCESS")
@click.option("--signal", "signal_name", default="KILL", show_default=True, help="Name of the signal, as STOP or TERM.")
@_with_testbed
def kill(bed: Testbed, name: str, signal_name: str) -> None:
    """Sends a signal to a process, as cluster1/daemon-node2 or cluster2/proxy."""
    try:
        number = signal.Signals[f"SIG{signal_name.upper().removeprefix('SIG')}"]
    except KeyError:
        raise KeyError(f"no signal {signal_name!r}") from None
    bed.kill_part(name, number)


@testbed.command()
@click.argument("names", metavar="PROCESS...", nargs=-1, required=True)
@_with_testbed
def start(bed: Testbed, names: tuple[str, ...]) -> None:
    """Starts processes that do not run and waits until they are ready."""
    bed.start_parts([bed.part(name) for name in names])


@testbed.command()
@click.option("--tag", default="demo", show_default=True, help="Name of the testbed; one that stands is replaced.")
@click.option(
    "--control",
    is_flag=True,
    help="Negative control: daemons stopped before step b, which then must fail: exit 0 if it does.",
)
@click.option("--keep", is_flag=True, help="Leave the testbed standing at the end.")
@click.option("--build", type=click.Path(path_type=Path), default=Path("build"), show_default=True, help="For results.")
def demo(tag: str, control: bool, keep: bool, build: Path) -> int:
    """The story of ClusterMesh with real packets, in a table. Exit 1 if a step does not see what it expects.

    Results go to demo.json and demo/ in the --build folder, those of the control to control.json and control/.
    """
    _require_machine()
    with _explained():
        return 0 if run_demo(Testbed(tag), build, control=control, keep=keep) else EXIT_FAILED
