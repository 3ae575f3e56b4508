"""The checks against openssl: what one accepts the other accepts, and both give the same reason."""

import itertools
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from certs.checks import Fault, Finding, Purpose, check_ca, check_chain
from tests.support.certificates import DAY, NOW, Forged, forge

NAME = "c1.mesh.cilium.io"
CA = forge("mesh CA", is_ca=True)
NAMESAKE = forge("mesh CA", is_ca=True)
NO_CA = forge("mesh CA", is_ca=False)
SAID = {
    "unable to get local issuer certificate": Fault.UNKNOWN_CA,
    "self-signed certificate": Fault.UNKNOWN_CA,
    "certificate signature failure": Fault.UNKNOWN_CA,
    "invalid CA certificate": Fault.NOT_A_CA,
    "certificate has expired": Fault.EXPIRED,
    "certificate is not yet valid": Fault.NOT_YET_VALID,
    "unsuitable certificate purpose": Fault.WRONG_USAGE,
    "hostname mismatch": Fault.MISSING_NAME,
}


def check(leaf: Forged, *authorities: Forged, days: float = 0, purpose: Purpose = Purpose.SERVER) -> list[Finding]:
    known = [authority.certificate for authority in authorities]
    now = NOW + timedelta(days=days)
    found = check_chain("x", [leaf.certificate], known, purpose=purpose, name=NAME, now=now)
    return [finding for finding in found if not finding.is_warning]


def openssl(tmp_path: Path, leaf: Forged, *authorities: Forged, days: float, purpose: Purpose) -> str:
    """Why openssl does not accept the leaf, empty if it does."""
    (tmp_path / "leaf").write_bytes(leaf.pem)
    (tmp_path / "ca").write_bytes(b"".join(authority.pem for authority in authorities))
    at = int((NOW + timedelta(days=days)).timestamp())
    command = ["openssl", "verify", "-CAfile", str(tmp_path / "ca"), "-purpose", f"ssl{purpose}", "-attime", str(at)]
    command += ["-verify_hostname", NAME] if purpose is Purpose.SERVER else []
    done = subprocess.run([*command, str(tmp_path / "leaf")], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    return next(line.rpartition(": ")[2] for line in done.stderr.splitlines() if "lookup:" in line)


@pytest.mark.parametrize("purpose", list(Purpose))
@pytest.mark.parametrize("issuer", [CA, NAMESAKE, NO_CA, None])
def test_openssl_says_the_same(tmp_path: Path, issuer: Forged | None, purpose: Purpose) -> None:
    bundle = [CA] if issuer is not NO_CA else [NO_CA]
    kinds = itertools.product([None, ["client"], ["server"], ["server", "client"]], [(), (NAME,), ("other.example",)])
    accepted = 0
    for usages, names in kinds:
        leaf = forge("leaf", issuer, usages=usages, names=[*names])
        for days in (-2, 0, 300):
            ours = {finding.fault for finding in check(leaf, *bundle, days=days, purpose=purpose)}
            theirs = openssl(tmp_path, leaf, *bundle, days=days, purpose=purpose)
            assert bool(ours) == bool(theirs), (usages, names, days, ours, theirs)
            assert not theirs or SAID[theirs] in ours, (theirs, ours)
            accepted += not ours
    assert bool(accepted) == (issuer is CA)


def test_each_fault_alone_is_told_apart() -> None:
    half_day = DAY / 2
    cases = {
        Fault.UNKNOWN_CA: check(forge("leaf", NAMESAKE, usages=["server"], names=[NAME]), CA),
        Fault.NOT_A_CA: check(forge("leaf", NO_CA, usages=["server"], names=[NAME]), NO_CA),
        Fault.EXPIRED: check(forge("leaf", CA, usages=["server"], names=[NAME], ends=NOW - half_day), CA),
        Fault.NOT_YET_VALID: check(forge("leaf", CA, usages=["server"], names=[NAME], begins=NOW + DAY), CA),
        Fault.WRONG_USAGE: check(forge("leaf", CA, usages=["client"], names=[NAME]), CA),
        Fault.MISSING_NAME: check(forge("leaf", CA, usages=["server"]), CA),
    }
    for fault, found in cases.items():
        assert [finding.fault for finding in found] == [fault]
        assert found[0].remedy
    assert check(forge("leaf", CA, usages=["server"], names=[NAME]), CA) == []


def test_texts_help() -> None:
    (namesake,) = check(forge("leaf", NAMESAKE, names=[NAME]), CA)
    assert "comes from another CA of the name CN=mesh CA" in namesake.text
    (self_signed,) = check(forge("leaf", names=[NAME]), CA)
    assert "signed by itself" in self_signed.text
    (nameless,) = check(forge(NAME, CA), CA)
    assert "no alternative name (SAN); a common name does not count; c1.mesh.cilium.io is expected" in nameless.text
    (ended,) = check(forge("leaf", CA, names=[NAME]), CA, days=203)[:1]
    assert "3 days ago" in ended.text


def test_either_ca_of_a_bundle_will_do() -> None:
    for issuer in (CA, NAMESAKE):
        assert check(forge("leaf", issuer, names=[NAME]), CA, NAMESAKE) == []


def test_an_intermediate_may_come_with_the_leaf() -> None:
    between = forge("between", CA, is_ca=True)
    leaf = forge("leaf", between, names=[NAME])
    for chain, bundle in (([leaf, between], [CA]), ([leaf], [CA, between])):
        certificates, known = [each.certificate for each in chain], [each.certificate for each in bundle]
        assert not check_chain("x", certificates, known, purpose=Purpose.SERVER, name=NAME, now=NOW)
    assert [one.fault for one in check(leaf, CA)] == [Fault.UNKNOWN_CA]


@pytest.mark.parametrize(
    ("pattern", "answers"), [(NAME.upper(), True), ("*.mesh.cilium.io", True), ("*.cilium.io", False), ("*", False)]
)
def test_names_match_as_tls_has_it(pattern: str, answers: bool) -> None:
    assert (not check(forge("leaf", CA, names=[pattern]), CA)) == answers


def test_an_end_that_is_near_is_a_warning() -> None:
    leaf = forge("leaf", CA, usages=["client"])
    now = NOW + 190 * DAY
    found = check_chain("x", [leaf.certificate], [CA.certificate], purpose=Purpose.CLIENT, name="", now=now)
    assert [finding.fault for finding in found] == [Fault.EXPIRES_SOON] * 2  # its CA ends too
    assert all(finding.is_warning for finding in found)


@pytest.mark.parametrize("is_ca", [False, None])
def test_a_leaf_is_no_ca(is_ca: bool | None) -> None:
    assert [one.fault for one in check_ca("x", forge("x", is_ca=is_ca).certificate, now=NOW)] == [Fault.NOT_A_CA]
