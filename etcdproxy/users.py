"""The users file: which certificate names have which role, and which are shut out.

    users:
      - {name: remote-cluster2, role: remote}
    denied: [remote-cluster3]

With a `users` list only the names in it have a role; without one a name says its role itself.
"""

from pathlib import Path

import msgspec

from etcdproxy.policy import Role, Users


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
