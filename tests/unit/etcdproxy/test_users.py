from pathlib import Path

import pytest

from etcdproxy.policy import Role, Users
from etcdproxy.users import UsersError, load_users


def test_reads_users_and_denials(tmp_path: Path) -> None:
    file = tmp_path / "users.yaml"
    file.write_text("users:\n  - {name: remote-c2, role: remote}\ndenied: [remote-c3]\n")
    assert load_users(file) == Users({"remote-c2": Role.REMOTE}, frozenset({"remote-c3"}))
    file.write_text("denied: [remote-c3]")
    assert load_users(file) == Users(None, frozenset({"remote-c3"}))
    file.write_text("")
    assert load_users(file) == Users()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("users: [{name: a, role: king}]", "king"),
        ("users: [{name: a}]", "role"),
        ("usres: []", "usres"),
        ("- a", "object"),
        ("{", "users.yaml"),
        ("denied: [1]", "denied"),
    ],
)
def test_problems_are_named(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "users.yaml"
    file.write_text(text)
    with pytest.raises(UsersError, match=problem):
        load_users(file)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsersError, match="No such file"):
        load_users(tmp_path / "none.yaml")
