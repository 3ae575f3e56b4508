"""The one program. A subcommand is imported only when it is called, so that `meshd status` needs no gRPC."""

import difflib
import errno
import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence

import click

from meshd.config import ConfigError
from meshd.logs import configure_logging

COMMANDS = {
    "agent": "meshd.agent.command:agent",
    "certs": "certs.command:certs",
    "daemon": "meshd.daemon.command:daemon",
    "events": "meshd.events:events",
    "explain": "meshd.flow:explain",
    "identity": "meshd.listing:identity",
    "ipcache": "meshd.listing:ipcache",
    "monitor": "meshd.monitor:monitor",
    "node": "meshd.listing:node",
    "plan": "meshd.plan:plan",
    "policy": "meshd.policies:policy",
    "proxy": "meshd.proxy:proxy",
    "service": "meshd.service:service",
    "status": "meshd.status:status",
    "testbed": "meshd.testbed.command:testbed",
    "uninstall": "meshd.uninstall:uninstall",
    "version": "meshd.version:version",
}

EXIT_OK, EXIT_DEGRADED, EXIT_BROKEN, EXIT_USAGE = 0, 1, 2, 3


class _HeardEnough(Exception):
    """Nobody reads our output any more: `meshd … | head`. Click would make a BrokenPipeError exit code 1."""


class LazyGroup(click.Group):
    """Finds its subcommands in COMMANDS."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _HeardEnough from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """With what a name that is none was perhaps meant to be: click knows only commands that are imported."""
        if args and args[0] not in COMMANDS and (near := difflib.get_close_matches(args[0], COMMANDS, n=1)):
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = COMMANDS.get(cmd_name)
        if target is None:
            return None
        module, _, attribute = target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101 — a wrong table above is a bug
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    envvar="MESHD_LOG_LEVEL",
    help="Least level that is logged to standard error.",
)
@click.version_option(package_name="meshd")
def program(log_level: str) -> None:
    """meshd joins Kubernetes clusters into one mesh, on top of any CNI.

    Exit codes: 0 ok, 1 degraded or a failed step, 2 broken, 3 usage or configuration.
    """
    configure_logging(getattr(logging, log_level.upper()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the program and ends the process with its exit code."""
    try:
        result = program.main(args=arguments, prog_name="meshd", standalone_mode=False)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.UsageError as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ConfigError as error:
        click.echo(f"meshd: {error}", err=True)
        sys.exit(EXIT_USAGE)
    except _HeardEnough:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_OK)
    except PermissionError as error:
        click.echo(f"meshd: {error.filename}: {error.strerror}: run it as root", err=True)
        sys.exit(EXIT_USAGE)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        click.echo(f"meshd: {error.filename or 'what it says'}: no space left", err=True)
        sys.exit(EXIT_BROKEN)
    except (click.Abort, KeyboardInterrupt):
        # An impatient second Ctrl-C must not turn what is a clean end into a traceback or a death by the signal.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        click.echo("meshd: interrupted", err=True)
        sys.exit(130)
    sys.exit(result if isinstance(result, int) else EXIT_OK)
