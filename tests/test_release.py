"""What is released: one version, a description, licences of all parts, versions for every extra."""

from __future__ import annotations

import importlib.metadata
import re
import runpy
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import invariantzoo

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SHIPPED = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("envs", "agents", "training", "scripts")
    for ending in ("*.npz", "*.json", "*.csv")
    for path in (ROOT / folder).rglob(ending)
)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_one_version_stands_everywhere() -> None:
    version = PROJECT["version"]
    assert invariantzoo.__version__ == version
    assert f"\nversion: {version}\n" in read("CITATION.cff")
    newest = re.search(r"^## (\S+)", read("CHANGELOG.md"), re.M)
    assert newest is not None
    assert newest[1] == version


def test_a_date_of_release_stands_in_both_files_or_in_none() -> None:
    dated = re.search(r"^date-released: (\S+)$", read("CITATION.cff"), re.M)
    newest = re.search(r"^## \S+ \((.+)\)$", read("CHANGELOG.md"), re.M)
    assert newest is not None
    assert newest[1] == (dated[1] if dated else "unreleased")


def test_the_description_leads_nowhere_outside_the_package() -> None:
    describe = runpy.run_path(str(ROOT / "setup.py"))["long_description"]
    readme = read("README.md")
    text = describe(readme)
    assert re.findall(r"\]\((?!https?:)", text) == []
    assert re.findall(r"<img|\.gif", text) == []
    fences = re.compile(r"^```.*?^```$", re.M | re.S)
    assert fences.findall(text) == fences.findall(readme)
    assert [line for line in readme.splitlines() if line.startswith("#")] == [
        line for line in text.splitlines() if line.startswith("#")
    ]
    assert re.findall(r"https?://[^)\s]+", text) == re.findall(r"https?://[^)\s]+", readme)


@pytest.mark.parametrize("path", SHIPPED)
def test_every_file_of_data_has_a_licence(path: str) -> None:
    (row,) = [line for line in read("NOTICE.md").splitlines() if f"`{path}`" in line]
    licence = row.rstrip(" |").rpartition("|")[2]
    assert re.search(r"MIT|CC BY 4\.0|LGPL-3\.0", licence)


def test_every_licence_is_named_and_its_text_is_there() -> None:
    licences = PROJECT["license"].split(" AND ")
    assert licences == ["MIT", "CC-BY-4.0", "LGPL-3.0-only"]
    files = [path for pattern in PROJECT["license-files"] for path in ROOT.glob(pattern)]
    assert all(path.stat().st_size > 100 for path in files)
    for name in licences[1:]:
        assert ROOT / f"LICENSES/{name}.txt" in files


@pytest.mark.parametrize("extra", PROJECT["optional-dependencies"])
def test_every_extra_has_its_versions_in_the_constraints(extra: str) -> None:
    pinned = {line.partition("==")[0] for line in read("constraints.txt").splitlines()}
    names = {
        re.split(r"[\[<>=;! ]", line)[0].lower() for line in PROJECT["optional-dependencies"][extra]
    }
    assert names <= pinned


def test_the_constraints_are_versions_that_fit_together() -> None:
    """Of what is installed in its version of the constraints: each needs what the others pin."""
    pins = dict(line.split("==") for line in read("constraints.txt").splitlines()[1:])
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    looked_at = 0
    for found in importlib.metadata.distributions():
        name = canonicalize_name(found.name)
        if pins.get(name) != Version(found.version).public:
            continue
        for need in map(Requirement, found.requires or []):
            if need.marker is not None and not need.marker.evaluate({"extra": ""}):
                continue
            pinned = pins.get(canonicalize_name(need.name))
            if pinned is not None:
                assert need.specifier.contains(pinned, prereleases=True), f"{name} needs {need}"
                looked_at += 1
    assert looked_at > 20


def test_every_python_that_is_named_is_tried_by_the_workflow() -> None:
    named = [
        line.rpartition(" ")[2] for line in PROJECT["classifiers"] if ":: Python :: 3." in line
    ]
    tried = re.search(r"python: \[(.*)\]", read(".github/workflows/tests.yml"))
    assert tried is not None
    assert len(named) > 1
    assert set(named) <= set(re.findall(r"[\d.]+", tried[1]))
    assert f">={named[0]}" == PROJECT["requires-python"]
