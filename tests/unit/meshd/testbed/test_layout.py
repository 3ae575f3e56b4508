import pytest

from meshd.config import ConfigError
from meshd.testbed.layout import Layout
from meshd.testbed.parts import socket_path


@pytest.mark.parametrize("tag", ["", "A", "a-b", "1a", "a" * 13, "../x"])
def test_bad_tags_are_refused(tag: str) -> None:
    with pytest.raises(ConfigError, match="tag"):
        Layout(tag)


def test_no_prefix_of_one_tag_is_that_of_another() -> None:
    assert not Layout("ab").switch.startswith(Layout("a").prefix)


def test_socket_paths_fit_the_kernel() -> None:
    layout = Layout("a" * 12)
    assert len(str(socket_path(layout, "cluster1", "control-plane", "daemon"))) < 108


def test_instances_have_no_dot_because_bpffs_refuses_it() -> None:
    assert "." not in Layout("mesh").instance("cluster1", "node1")
