"""The tree keeps what the documents promise: each package describes each of its files, and names are the field's."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = [
    "certs",
    "datapath",
    "etcdproxy",
    "etcdproxy/http2",
    "globalsvc",
    "identity",
    "meshd/agent",
    "meshd/daemon",
    "meshd/reconcile",
]
PACKAGES += ["meshd/testbed", "policy", "routing", "wire"]
VAGUE = {"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"}


def tracked(pattern: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", pattern], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_readme_of_a_package_names_each_of_its_files(package: str) -> None:
    readme = (ROOT / package / "README.md").read_text()
    assert len(readme.splitlines()) <= 60
    files = [
        path for path in tracked(f"{package}/*") if path.suffix in (".py", ".c", ".h") and path.name != "__init__.py"
    ]
    missing = [path.name for path in files if path.name not in readme and f"{path.parent.name}/" not in readme]
    assert not missing


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert not [path for path in tracked("*.py") if path.stem in VAGUE]


def test_links_in_the_documents_lead_somewhere() -> None:
    broken = []
    for document in tracked("*.md"):
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
            if "://" not in target and not (document.parent / target).exists():
                broken.append(f"{document.relative_to(ROOT)} → {target}")
    assert not broken
