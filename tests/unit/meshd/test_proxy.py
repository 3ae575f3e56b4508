from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from meshd.config import ConfigError
from meshd.proxy import proxy

FLAGS = ["--cluster=c1", "--listen=127.0.0.1:2379", "--etcd=http://127.0.0.1:1", "--cert=a", "--key=b", "--ca=c"]


def test_prints_the_effective_configuration_which_can_be_read_again(tmp_path: Path) -> None:
    file = tmp_path / "proxy.yaml"
    file.write_text("cluster: c9\nlimits: {watches: 7}\nhealth: 127.0.0.1:9882\n")
    first = CliRunner().invoke(proxy, ["--config", str(file), *FLAGS, "--print-config"], catch_exceptions=False)
    config = yaml.safe_load(first.output)
    assert config["cluster"] == "c1"
    assert config["limits"]["watches"] == 7
    assert config["limits"]["streams"] == 10_000
    assert config["run_dir"] == "/run/meshd"
    file.write_text(first.output)
    again = CliRunner().invoke(proxy, ["--config", str(file), "--print-config"], catch_exceptions=False)
    assert again.output == first.output


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        CliRunner().invoke(proxy, ["--cluster=A", "--etcd=x", "--print-config"], catch_exceptions=False)
    text = str(refused.value)
    for problem in ("invalid cluster name 'A'", "http://HOST:PORT", "listen", "cert", "key", "ca"):
        assert problem in text
