import os
from pathlib import Path

from meshd.agent.objects import Namespace, ObjectKind, Ref
from meshd.agent.sources.folder import ManifestFolder
from meshd.agent.state import Changes

A, B = Ref(ObjectKind.NAMESPACE, "", "a"), Ref(ObjectKind.NAMESPACE, "", "b")


def namespace(name: str, label: str = "") -> str:
    return f'kind: Namespace\nmetadata: {{name: {name}, labels: {{x: "{label}"}}}}\n'


def write(folder: Path, name: str, *documents: str) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.with_name(f".{path.name}").write_text("---\n".join(documents))
    path.with_name(f".{path.name}").rename(path)
    return path


def said(changes: Changes) -> tuple[set[str], set[str]]:
    return {ref.name for ref in changes.upserts}, {ref.name for ref in changes.deletes}


def test_first_everything_then_what_differs(tmp_path: Path) -> None:
    folder = ManifestFolder(tmp_path)
    assert folder.scan() == Changes({}, set(), synced=True)
    path = write(tmp_path, "a.yaml", namespace("a"), namespace("b"))
    write(tmp_path, "deep/c.yml", namespace("c"))
    assert said(folder.scan()) == ({"a", "b", "c"}, set())
    assert said(folder.scan()) == (set(), set())
    write(tmp_path, "a.yaml", namespace("a"), namespace("b", "new"))
    assert said(folder.scan([path])) == ({"b"}, set())
    write(tmp_path, "a.yaml", namespace("b", "new"))
    assert said(folder.scan([path])) == (set(), {"a"})
    path.unlink()
    assert said(folder.scan([path])) == (set(), {"b"})
    assert folder.problems() == []


def test_files_of_other_kinds_and_hidden_ones_are_not_read(tmp_path: Path) -> None:
    write(tmp_path, "notes.txt", namespace("a"))
    (tmp_path / ".hidden.yaml").write_text(namespace("b"))
    write(tmp_path, ".git/c.yaml", namespace("c"))
    assert said(ManifestFolder(tmp_path).scan()) == (set(), set())


def test_a_touched_file_changes_nothing(tmp_path: Path) -> None:
    folder = ManifestFolder(tmp_path)
    path = write(tmp_path, "a.yaml", namespace("a"))
    folder.scan()
    os.utime(path, ns=(1, 1))
    assert said(folder.scan()) == (set(), set())


def test_as_long_as_a_file_is_broken_it_takes_nothing_away(tmp_path: Path) -> None:
    folder = ManifestFolder(tmp_path)
    write(tmp_path, "a.yaml", namespace("a"), namespace("b"))
    folder.scan()
    write(tmp_path, "a.yaml", "metadata: {name: [}\n", namespace("b", "new"), namespace("c"))
    assert said(folder.scan()) == ({"b", "c"}, set())
    assert [(problem.file, problem.document, problem.line) for problem in folder.problems()] == [("a.yaml", 1, 1)]
    write(tmp_path, "a.yaml", namespace("c"))
    assert said(folder.scan()) == (set(), {"a", "b"})
    assert folder.problems() == []


def test_an_emptied_file_takes_nothing_away(tmp_path: Path) -> None:
    folder = ManifestFolder(tmp_path)
    path = write(tmp_path, "a.yaml", namespace("a"))
    folder.scan()
    path.write_text("")
    assert said(folder.scan()) == (set(), set())
    assert "the file is empty" in str(folder.problems()[0])


def test_a_broken_file_costs_only_itself(tmp_path: Path) -> None:
    folder = ManifestFolder(tmp_path)
    write(tmp_path, "bad.yaml", "{")
    write(tmp_path, "good.yaml", namespace("a"))
    assert said(folder.scan()) == ({"a"}, set())
    assert [problem.file for problem in folder.problems()] == ["bad.yaml"]


def test_it_is_whole_when_nothing_was_ever_unreadable(tmp_path: Path) -> None:
    folder = ManifestFolder(tmp_path)
    good = write(tmp_path, "good.yaml", namespace("a"))
    bad = write(tmp_path, "bad.yaml", "{")
    assert not folder.scan().whole
    good.write_text("{")
    write(tmp_path, "bad.yaml", namespace("b"))
    assert folder.scan().whole, "what good.yaml says is known from before"
    write(tmp_path, "new.yaml", "{")
    assert not folder.scan().whole
    (tmp_path / "new.yaml").unlink()
    bad.unlink()
    assert folder.scan().whole


def test_what_cannot_be_read_is_named_and_keeps_its_objects(tmp_path: Path) -> None:
    folder = ManifestFolder(tmp_path)
    path = write(tmp_path, "a.yaml", namespace("a"))
    folder.scan()
    path.unlink()
    path.symlink_to(path)  # a loop: every stat fails, whoever asks
    assert said(folder.scan()) == (set(), set())
    assert "a.yaml:1: cannot be read (" in str(folder.problems()[0])


def test_an_object_that_two_files_define_is_the_first_ones(tmp_path: Path) -> None:
    folder = ManifestFolder(tmp_path)
    write(tmp_path, "2.yaml", namespace("a", "two"))
    folder.scan()
    first = write(tmp_path, "1.yaml", namespace("a", "one"))
    (known,) = folder.scan().upserts.values()
    assert isinstance(known, Namespace)
    assert known.metadata.labels == {"x": "one"}
    assert str(folder.problems()[0]) == "2.yaml:1: Namespace a is defined in 1.yaml already: remove one: 1.yaml is used"
    first.unlink()
    assert said(folder.scan()) == ({"a"}, set())
    assert folder.problems() == []


def test_a_folder_that_is_gone_takes_nothing_away(tmp_path: Path) -> None:
    folder = ManifestFolder(tmp_path / "m")
    assert not folder.scan().synced
    assert "the folder is gone" in str(folder.problems()[0])
    path = write(tmp_path / "m", "a.yaml", namespace("a"))
    assert said(folder.scan()) == ({"a"}, set())
    path.unlink()
    path.parent.rmdir()
    assert said(folder.scan()) == (set(), set())
    (tmp_path / "m").mkdir()
    assert said(folder.scan()) == (set(), {"a"})
