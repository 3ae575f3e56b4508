from pathlib import Path

import pytest

from meshd.daemon.remotefile import BadRemoteFile, is_remote_file, parse_remote_file

CILIUM = """
endpoints:
- https://cluster2.mesh.cilium.io:2379
trusted-ca-file: /var/lib/cilium/clustermesh/common-etcd-client-ca.crt
key-file: /var/lib/cilium/clustermesh/common-etcd-client.key
cert-file: /var/lib/cilium/clustermesh/common-etcd-client.crt
cilium-host-aliases:
- hostname: cluster2.mesh.cilium.io
  ips:
  - 172.18.255.10
  - fd00::1
"""
FOLDER = Path("/mesh")
ALIAS = "{hostname: a, ips: [10.0.0.1]}"
CERTS = "{trusted-ca-file: ca, cert-file: crt, key-file: key, "


def test_a_file_written_for_cilium_works_unchanged() -> None:
    file = parse_remote_file("cluster2", CILIUM, folder=FOLDER)
    assert file.targets == ("ipv4:172.18.255.10:2379", "ipv6:[fd00::1]:2379")
    assert file.server_name == "cluster2.mesh.cilium.io"
    assert file.ca_file == Path("/var/lib/cilium/clustermesh/common-etcd-client-ca.crt")
    assert file.warnings == ()


def test_paths_are_relative_to_the_folder_and_ports_have_a_default() -> None:
    file = parse_remote_file("c2", CERTS + "endpoints: ['https://example.org', 'https://10.0.0.1:99']}", folder=FOLDER)
    assert file.key_file == Path("/mesh/key")
    assert file.targets == ("dns:///example.org:2379", "ipv4:10.0.0.1:99")


def test_cilium_host_aliases_stand_for_their_name_in_any_case_and_other_names_are_looked_up() -> None:
    text = CERTS + "endpoints: ['https://A.example', 'https://b.example:1'], cilium-host-aliases: ["
    text += "{hostname: a.Example, ips: [10.0.0.1, 'FD00::1']}, {hostname: c.example, ips: [10.0.0.3]}]}"
    file = parse_remote_file("c2", text, folder=FOLDER)
    assert file.targets == ("ipv4:10.0.0.1:2379", "ipv6:[fd00::1]:2379", "dns:///b.example:1")


def test_our_own_key_names_the_server_and_warns_of_what_it_does_not_know() -> None:
    text = CERTS + "endpoints: ['https://10.0.0.1'], meshd: {server-name: proxy.c2, colour: red}}"
    file = parse_remote_file("c2", text, folder=FOLDER)
    assert file.server_name == "proxy.c2"
    assert file.warnings == ("unknown key `meshd.colour` is ignored",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("endpoints: [", "is not YAML"),
        ("endpoints:", "trusted-ca-file"),
        ("- endpoints:", "must be a mapping"),
        (CERTS + "endpoints: []}", "must be a list"),
        (CERTS + "endpoints: ['http://10.0.0.1']}", "must be https://"),
        (CERTS + "endpoints: ['https://10.0.0.1:x']}", "https://10.0.0.1:x"),
        (CERTS + "endpoints: ['https://a'], insecure-skip-tls-verify: true}", "`insecure-skip-tls-verify` is refused"),
        (CERTS + "endpoints: ['https://a'], password: x}", "`password` is refused"),
        (CERTS + "endpoints: ['https://a'], meshd: 1}", "must be a mapping"),
        (CERTS + "endpoints: ['https://a'], cilium-host-aliases: [{hostname: a}]}", "at least one of `ips`"),
        (CERTS + "endpoints: ['https://a'], cilium-host-aliases: [{ips: [10.0.0.1]}]}", "needs a `hostname`"),
        (CERTS + f"endpoints: ['https://a'], cilium-host-aliases: [{ALIAS}, {ALIAS}]}}", "`hostname` of its own"),
        (
            CERTS + "endpoints: ['https://a'], cilium-host-aliases: {a: 10.0.0.1}}",
            "`cilium-host-aliases` must be a list",
        ),
        (CERTS + "endpoints: ['https://a'], cilium-host-aliases: [{hostname: a, ips: [b]}]}", "'b' is no IP address"),
    ],
)
def test_what_cannot_be_used_is_named(text: str, says: str) -> None:
    with pytest.raises(BadRemoteFile, match=says):
        parse_remote_file("c2", text, folder=FOLDER)


def test_only_a_file_with_endpoints_is_one() -> None:
    assert is_remote_file(CILIUM)
    assert not is_remote_file("-----BEGIN CERTIFICATE-----")
