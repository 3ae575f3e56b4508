"""The users file changes under a running proxy."""

import shutil
from pathlib import Path

import grpc
import grpc.aio
import pytest

from tests.support.etcd import Etcd
from tests.support.proxy import Proxy, Reader, reader

pytestmark = pytest.mark.etcd

STATE, STATE_END = b"cilium/state/", b"cilium/state0"


@pytest.fixture
def users(tmp_path: Path) -> Path:
    file = tmp_path / "users.yaml"
    write(file, "denied: []")
    return file


@pytest.fixture
def proxy_options(users: Path) -> tuple[str, ...]:
    return (f"--users={users}",)


def write(file: Path, text: str) -> None:
    """Replaces the file in one step."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.rename(file)


async def refusal(reading: Reader) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await reading.range(STATE, STATE_END)
    return refused.value.code()


async def test_a_denied_name_loses_its_streams_at_once_and_no_other_does(etcd: Etcd, proxy: Proxy, users: Path) -> None:
    async with (
        reader(proxy, proxy.certificate("remote-c2")) as two,
        reader(proxy, proxy.certificate("remote-c3")) as three,
        two.watch(STATE, STATE_END) as lost,
        three.watch(STATE, STATE_END) as kept,
    ):
        write(users, "denied: [remote-c2]")
        assert await lost.code() is grpc.StatusCode.UNAVAILABLE
        assert await refusal(two) is grpc.StatusCode.PERMISSION_DENIED
        revision = etcd.put("cilium/state/a", "1")
        assert [event.kv.mod_revision for event in (await kept.read()).events] == [revision]
        async with two.watch(b"cilium/other") as again:  # the stream opens, but nothing may be watched
            assert (await again.create(STATE, STATE_END)).canceled
        write(users, "users: [{name: remote-c2, role: remote}]")
        assert await kept.code() is grpc.StatusCode.UNAVAILABLE  # removed from the names with a role
        await two.range(STATE, STATE_END)
        assert await refusal(three) is grpc.StatusCode.PERMISSION_DENIED


async def test_a_broken_file_changes_nothing_and_is_named(proxy: Proxy, users: Path) -> None:
    async with reader(proxy, proxy.certificate("remote-c2")) as reading, reading.watch(STATE, STATE_END) as watch:
        write(users, "denied: [remote-c2")
        status = proxy.await_status(lambda status: bool(status["users"]["problem"]))
        assert str(users) in status["users"]["problem"]
        users.unlink()
        proxy.await_status(lambda status: "No such file" in status["users"]["problem"])
        await reading.range(STATE, STATE_END)
        assert await watch.read_all() == []
        write(users, "denied: [remote-c9]")
        proxy.await_status(lambda status: not status["users"]["problem"])
        await reading.range(STATE, STATE_END)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Reached over a symlink, as the files of a ConfigMap are, and of `meshd certs`."""
    (tmp_path / "first").mkdir()
    (tmp_path / "users").symlink_to("first")
    write(tmp_path / "first/users.yaml", "denied: []")
    return tmp_path / "users"


async def test_a_file_behind_a_symlink_or_in_a_folder_made_anew_is_followed(idle_proxy: Proxy, folder: Path) -> None:
    idle_proxy.options = (f"--users={folder / 'users.yaml'}",)
    idle_proxy.start()
    certificates = [idle_proxy.certificate(name) for name in ("remote-c2", "remote-c3")]
    async with (
        reader(idle_proxy, certificates[0]) as two,
        reader(idle_proxy, certificates[1]) as three,
        two.watch(STATE, STATE_END) as first,
        three.watch(STATE, STATE_END) as second,
    ):
        (folder.parent / "second").mkdir()
        write(folder.parent / "second/users.yaml", "denied: [remote-c2]")
        (folder.parent / "new").symlink_to("second")
        (folder.parent / "new").rename(folder)
        assert await first.code() is grpc.StatusCode.UNAVAILABLE
        shutil.rmtree(folder.parent / "second")
        (folder.parent / "second").mkdir()
        write(folder / "users.yaml", "denied: [remote-c3]")
        assert await second.code() is grpc.StatusCode.UNAVAILABLE
        await two.range(STATE, STATE_END)
