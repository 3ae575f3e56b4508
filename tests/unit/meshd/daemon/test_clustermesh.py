from pathlib import Path

import pytest

from meshd.daemon.clustermesh import scan_folder

TEXT = "{endpoints: ['https://10.0.0.1'], trusted-ca-file: ca, cert-file: crt, key-file: key}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cluster2").write_text(TEXT)
    return tmp_path


def test_certificates_and_our_own_name_are_no_remotes(folder: Path) -> None:
    (folder / "cluster1").write_text(TEXT)
    (folder / "common-etcd-client.crt").write_text("-----BEGIN CERTIFICATE-----")
    (folder / "..data").mkdir()
    scan = scan_folder(folder, own="cluster1")
    assert list(scan.files) == ["cluster2"]
    assert scan.problems == {}


def test_an_unusable_file_is_named_and_the_rest_works(folder: Path) -> None:
    (folder / "cluster3").write_text("endpoints: [")
    (folder / "Bad_Name").write_text(TEXT)
    (folder / "gone").symlink_to(folder / "nowhere")
    scan = scan_folder(folder, own="cluster1")
    assert list(scan.files) == ["cluster2"]
    assert set(scan.problems) == {"cluster3", "Bad_Name"}
    assert "is not YAML" in scan.problems["cluster3"]
    assert "no cluster name" in scan.problems["Bad_Name"]


def test_the_hash_is_of_the_content_as_kubernetes_swaps_it(folder: Path) -> None:
    before = scan_folder(folder, own="cluster1").hashes
    (folder / "old").mkdir()
    (folder / "old" / "cluster2").write_text(TEXT)
    (folder / "cluster2").unlink()
    (folder / "cluster2").symlink_to(folder / "old" / "cluster2")
    assert scan_folder(folder, own="cluster1").hashes == before
    (folder / "old" / "cluster2").write_text(TEXT.replace("10.0.0.1", "10.0.0.2"))
    assert scan_folder(folder, own="cluster1").hashes != before


def test_a_folder_that_cannot_be_read_is_a_problem_of_its_own(tmp_path: Path) -> None:
    scan = scan_folder(tmp_path / "none", own="cluster1")
    assert scan.files == {}
    assert "cannot be read" in scan.problems[""]


def test_a_known_cluster_whose_file_is_emptied_has_not_left(folder: Path) -> None:
    known = scan_folder(folder, own="cluster1")
    (folder / "cluster2").write_text("")
    assert scan_folder(folder, own="cluster1").problems == {}
    scan = scan_folder(folder, own="cluster1", known=known)
    assert "endpoints:" in scan.problems["cluster2"]
    (folder / "cluster2").unlink()
    assert scan_folder(folder, own="cluster1", known=known).problems == {}


def test_only_what_has_changed_is_parsed_again(folder: Path) -> None:
    (folder / "cluster3").write_text(TEXT)
    known = scan_folder(folder, own="cluster1")
    (folder / "cluster3").write_text(TEXT + "\n")
    (folder / "cluster2").touch()
    scan = scan_folder(folder, own="cluster1", known=known)
    assert scan.files == known.files
    assert scan.files["cluster2"] is known.files["cluster2"]
    assert scan.files["cluster3"] is not known.files["cluster3"]
