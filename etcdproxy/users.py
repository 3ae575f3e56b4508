"""The users file: which certificate names have which role, and which are shut out.

    users:
      - {name: remote-cluster2, role: remote}
    denied: [remote-cluster3]

With a `users` list only the names in it have a role; without one a name says its role itself.

The file is looked at several times a second: a watch of the kernel's would be one of a folder, and would miss it when a
symlink on the way leads elsewhere, or the folder is made anew.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from certs.reload import signature_of
from etcdproxy.policy import Role, Users

logger = logging.getLogger(__name__)

_LOOK_S = 0.2


class UsersError(Exception):
    """The users file cannot be used; the message names the file and what is wrong."""


class _User(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    role: Role


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    users: list[_User] | None = None
    denied: list[str] = []


def load_users(path: Path) -> Users:
    """Reads the file; raises UsersError."""
    try:
        return parse_users(path.read_bytes())
    except OSError as error:
        raise UsersError(f"users file {path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise UsersError(f"users file {path}: {error}") from error


def parse_users(text: bytes) -> Users:
    """Raises msgspec.MsgspecError if the text is no users file."""
    file = msgspec.yaml.decode(text, type=_File) if text.strip() else _File()
    roles = None if file.users is None else {user.name: user.role for user in file.users}
    return Users(roles, frozenset(file.denied))


class LiveUsers:
    """The users of a file, followed. `problem` says why the file is not what is used, empty if it is.

    The constructor raises UsersError: a proxy does not start with rules that it cannot read.
    """

    def __init__(self, path: Path) -> None:
        self._signature = signature_of(path)
        self.users = load_users(path)
        self.problem = ""
        self._path = path

    async def follow(self, changed: Callable[[Users], None]) -> None:
        """Calls `changed` with the new users whenever they are others. Never returns."""
        while True:
            await asyncio.sleep(_LOOK_S)
            if signature_of(self._path) != self._signature and self.refresh():
                changed(self.users)

    def refresh(self) -> bool:
        """Reads the file again; whether the users are others now. One that cannot be read changes nothing."""
        self._signature = signature_of(self._path)  # of before it is read: a change meanwhile is seen next time
        try:
            users = load_users(self._path)
        except UsersError as error:
            if str(error) != self.problem:
                logger.error("users not reloaded, the old ones are kept", extra={"reason": str(error)})
            self.problem = str(error)
            return False
        differs, self.users, self.problem = users != self.users, users, ""
        if differs:
            logger.info("users reloaded", extra={"file": self._path})
        return differs
