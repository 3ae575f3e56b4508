import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from meshd.agent.sources import manifests
from meshd.agent.sources.manifests import ManifestSource
from meshd.agent.state import Changes

DEADLINE_S = 10.0


def write(folder: Path, name: str, text: str) -> None:
    (folder / f".{name}").write_text(text)
    (folder / f".{name}").rename(folder / name)


def namespace(name: str) -> str:
    return f"kind: Namespace\nmetadata: {{name: {name}}}\n"


async def until(stream: AsyncIterator[Changes], *, upsert: str = "", delete: str = "") -> None:
    """Reads on until this object was said to be there, or gone."""
    async with asyncio.timeout(DEADLINE_S):
        async for changes in stream:
            if upsert in {ref.name for ref in changes.upserts} or delete in {ref.name for ref in changes.deletes}:
                return


async def test_first_everything_then_each_change(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", namespace("a"))
    async with aclosing(ManifestSource(tmp_path).changes()) as stream:
        first = await anext(stream)
        assert first.synced
        assert {ref.name for ref in first.upserts} == {"a"}
        write(tmp_path, "b.yaml", namespace("b"))
        await until(stream, upsert="b")
        write(tmp_path, "b.yaml", namespace("c"))
        await until(stream, upsert="c")
        (tmp_path / "a.yaml").unlink()
        await until(stream, delete="a")


async def test_a_whole_folder_may_come_and_go(tmp_path: Path) -> None:
    async with aclosing(ManifestSource(tmp_path).changes()) as stream:
        await anext(stream)
        aside = tmp_path / ".aside"
        aside.mkdir()
        write(aside, "a.yaml", namespace("a"))
        aside.rename(tmp_path / "team")
        await until(stream, upsert="a")
        write(tmp_path / "team", "b.yaml", namespace("b"))
        await until(stream, upsert="b")
        shutil.rmtree(tmp_path / "team")
        await until(stream, delete="b")


async def test_a_mounted_config_map_is_swapped_at_once(tmp_path: Path) -> None:
    """As the kubelet does it: `a.yaml` → `..data/a.yaml`, and `..data` is a link that is replaced."""
    for version, name in (("..v1", "old"), ("..v2", "new")):
        (tmp_path / version).mkdir()
        write(tmp_path / version, "a.yaml", namespace(name))
    (tmp_path / "..data").symlink_to("..v1")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    async with aclosing(ManifestSource(tmp_path).changes()) as stream:
        assert {ref.name for ref in (await anext(stream)).upserts} == {"old"}
        (tmp_path / "..next").symlink_to("..v2")
        (tmp_path / "..next").rename(tmp_path / "..data")
        await until(stream, upsert="new")


async def test_a_folder_that_is_replaced_is_watched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "RESCAN_MS", 50)
    folder = tmp_path / "m"
    folder.mkdir()
    write(folder, "a.yaml", namespace("a"))
    source = ManifestSource(folder)
    async with aclosing(source.changes()) as stream:
        await anext(stream)
        folder.rename(tmp_path / "old")
        async with asyncio.timeout(DEADLINE_S):
            async for changes in stream:
                assert not changes.deletes
                if source.problems:
                    break
        folder.mkdir()
        write(folder, "b.yaml", namespace("b"))
        await until(stream, upsert="b")
        monkeypatch.setattr(manifests, "RESCAN_MS", 60_000)
        for name in "cd":  # for c it may have looked by itself, for d it was told
            write(folder, f"{name}.yaml", namespace(name))
            await until(stream, upsert=name)


async def test_a_problem_is_logged_when_it_comes_and_only_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source = ManifestSource(tmp_path)
    async with aclosing(source.changes()) as stream:
        await anext(stream)
        write(tmp_path, "bad.yaml", "{")
        write(tmp_path, "a.yaml", namespace("a"))
        await until(stream, upsert="a")
        write(tmp_path, "b.yaml", namespace("b"))
        await until(stream, upsert="b")
        assert [problem.file for problem in source.problems] == ["bad.yaml"]
        (tmp_path / "bad.yaml").unlink()
        write(tmp_path, "c.yaml", namespace("c"))
        await until(stream, upsert="c")
    assert sum("bad.yaml:" in message for message in caplog.messages) == 1
    assert "all manifests can be read again" in caplog.messages
