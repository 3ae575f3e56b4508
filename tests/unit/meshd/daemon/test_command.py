from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from meshd.config import ConfigError
from meshd.daemon.command import daemon

SETTINGS = {
    "cluster": "cluster1",
    "cluster_id": 1,
    "node": "n1",
    "local": "/etc/local.yaml",
    "clustermesh": "/etc/clustermesh",
    "bpffs": "/sys/fs/bpf",
    "cgroup": "/sys/fs/cgroup",
}
FILE = "endpoints: ['https://127.0.0.1:1']\ntrusted-ca-file: ca\ncert-file: crt\nkey-file: key\n"


def run(folder: Path, *arguments: str, **changes: object) -> str:
    """What the command printed; its errors are raised."""
    path = folder / "daemon.yaml"
    path.write_text(yaml.safe_dump(SETTINGS | changes))
    result = CliRunner().invoke(daemon, ["--config", str(path), *arguments], standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.output


def test_flags_override_the_file(tmp_path: Path) -> None:
    shown = yaml.safe_load(run(tmp_path, "--print-config", "--node", "n2"))
    assert (shown["node"], shown["cluster_id"], shown["run_dir"]) == ("n2", 1, "/run/meshd")


def test_all_problems_are_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        run(tmp_path, cluster="No_Name", cluster_id=300)
    assert "'No_Name' is no cluster name" in str(error.value)
    assert "must be 1 to 255, is 300" in str(error.value)


def test_a_local_file_that_cannot_be_read_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"local\.yaml: cannot be read"):
        run(tmp_path, local=str(tmp_path / "local.yaml"))
    (tmp_path / "local.yaml").write_text("endpoints: []\n")
    with pytest.raises(ConfigError, match="`trusted-ca-file` is missing"):
        run(tmp_path, local=str(tmp_path / "local.yaml"))


def test_a_datapath_that_cannot_be_brought_up_is_broken(tmp_path: Path) -> None:
    (tmp_path / "local.yaml").write_text(FILE)
    result = CliRunner().invoke(daemon, ["--print-config"])
    assert isinstance(result.exception, ConfigError)
    path = tmp_path / "daemon.yaml"
    path.write_text(yaml.safe_dump(SETTINGS | {"local": str(tmp_path / "local.yaml"), "bpffs": str(tmp_path)}))
    result = CliRunner().invoke(daemon, ["--config", str(path), "--device", "lo"])
    assert result.exit_code == 2
    assert "is not in a bpffs" in result.output
