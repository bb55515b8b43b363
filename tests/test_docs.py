"""The documentation: its code runs, its links lead somewhere, and what is generated is current."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import invariantzoo
from invariantzoo import report as records
from invariantzoo.__main__ import _module, _parse, main
from invariantzoo.site import pages

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
OWN = "docs/write-your-own-system.md"
_FENCE = re.compile(r"^```(\w*)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page in a language; those that are files of their own are left out."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [code for lang, file, code in _FENCE.findall(text) if lang == language and not file]


def files(page: str) -> dict[str, str]:
    """The code blocks of a page that are files, by name."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return {file: code for _, file, code in _FENCE.findall(text) if file}


def run(code: str, page: str) -> None:
    exec(compile(code, page, "exec"), {"__name__": "__main__"})


def test_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, *others = blocks("README.md", "python")
    assert len(first.splitlines()) <= 12
    run("\n".join([first, *others]), "README.md")


@pytest.mark.parametrize("line", [line for line in blocks("README.md", "bash")[:2]])
def test_the_two_lines_of_the_readme_are_single_lines(line: str) -> None:
    assert line.count("\n") == 1
    assert line.startswith("python3 -m venv .venv && . .venv/bin/activate && pip install -c ")


def test_every_interface_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("\n".join(blocks("docs/apis.md", "python")), "docs/apis.md")


def test_power_laws_are_judged_as_the_page_says() -> None:
    run("\n".join(blocks("docs/criticality.md", "python")), "docs/criticality.md")


def test_a_system_of_ones_own(tmp_path: Path) -> None:
    """The page's file, its code and its commands work from an empty folder, in a process apart.

    They take fewer steps and episodes than the page's: all that they do is done sooner.
    """
    fewer = {"rollout": [], "check": ["--steps", "40"], "train": ["--steps", "1024"]}
    fewer["evaluate"] = ["--episodes", "4"]
    for name, code in files(OWN).items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    commands = []
    for line in "".join(blocks(OWN, "bash")).splitlines():
        setting, program, *words = line.split()
        assert (setting, program) == ("PYTHONPATH=.", "invariantzoo")
        commands.append([*words, *fewer.pop(words[0])])
    assert not fewer
    last = (
        "from invariantzoo.commands import train\ntrain.EPISODES, train.FRAMES = 2, 20\n"
        f"from invariantzoo.__main__ import main\nassert [main(c) for c in {commands}] == [0] * 4\n"
    )
    (tmp_path / "page.py").write_text("\n".join([*blocks(OWN, "python"), last]), encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": ".", "OMP_NUM_THREADS": "1", "SDL_VIDEODRIVER": "dummy"}
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "agree.gif").exists()
    assert (tmp_path / "runs/kuramoto/policy.zip").exists()


def test_a_driver_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands and the code of the page, with one update and few discs."""
    monkeypatch.chdir(tmp_path)
    train, film = blocks("docs/train-a-driver.md", "bash")
    words = shlex.split(train)[1:] + shlex.split("--steps 1 --set pairs=2 --set n_worlds=1")
    words[words.index("horizon=100")] = "horizon=20"
    assert main(words) == 0
    code = "\n".join(blocks("docs/train-a-driver.md", "python"))
    run(code.replace("n_agents=64", "n_agents=12"), "docs/train-a-driver.md")
    words = [*shlex.split(film)[1:], "--set", "n_agents=12", "--n-steps", "5"]
    assert main(words) == 0
    assert (tmp_path / "driver.mp4").exists()


@pytest.mark.parametrize("id", pages.own_ids())
def test_the_page_of_an_id_makes_it(id: str) -> None:
    for code in blocks(f"docs/environments/{id}.md", "python"):
        run(code, id)


def test_generated_pages_are_current() -> None:
    made = pages.pages(ROOT)
    assert {f"docs/environments/{id}.md" for id in pages.own_ids()} < set(made)
    for name, text in made.items():
        assert (ROOT / name).read_text(encoding="utf-8") == text, (
            f"{name} is not current: run python -m invariantzoo.site.pages"
        )
    stale = {path.stem for path in (ROOT / "docs/environments").glob("*.md")} - set(pages.own_ids())
    assert not stale


def test_generated_pages_are_the_same_every_time() -> None:
    assert pages.pages(ROOT) == pages.pages(ROOT)


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks"):
        pages.with_part("# A page\n", "ids", "| id |\n")


@pytest.mark.parametrize("id", pages.own_ids())
def test_every_parameter_is_explained(id: str) -> None:
    system = invariantzoo.make_system(id)
    explained = pages.meanings(system)
    unexplained = [name for name in pages.parameters(system) if not explained.get(name)]
    assert not unexplained


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    local = [link for link in _LINK.findall(text) if not link.startswith(("http", "#"))]
    missing = [link for link in local if not (page.parent / link.partition("#")[0]).exists()]
    assert not missing


def command_lines(page: Path, program: str) -> list[str]:
    """Lines of a page's code blocks that call a program, without comments; no outlines of usage."""
    found = []
    for _, _, code in _FENCE.findall(page.read_text(encoding="utf-8")):
        for line in code.replace("\\\n", " ").split("\n"):
            for command in re.split(r"&&|\||;", line):
                words = command.partition(" #")[0].strip().removeprefix("$ ")
                if words.startswith(f"{program} ") and "[" not in words:
                    found.append(words)
    return found


def test_every_command_in_the_docs_is_one() -> None:
    """Its command and arguments are known, of the right kinds; nothing is run."""
    lines = [line for page in PAGES for line in command_lines(page, "invariantzoo")]
    assert len(lines) > 100
    for line in lines:
        name, *words = shlex.split(line)[1:]
        stop = min([words.index(sign) for sign in (">", "2>", "<", "&") if sign in words] or [99])
        _parse(_module(name), name, words[:stop])


def test_every_module_in_the_docs_is_there() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    names = set(re.findall(r"python -m (invariantzoo[\w.]*\w)", text))
    assert len(names) > 40
    assert not [name for name in sorted(names) if importlib.util.find_spec(name) is None]


def test_every_page_can_be_found_from_the_index() -> None:
    index = ROOT / "docs/index.md"
    found, waiting = {index}, [index]
    while waiting:
        page = waiting.pop()
        links = _LINK.findall(page.read_text(encoding="utf-8"))
        targets = {(page.parent / link.partition("#")[0]).resolve() for link in links}
        new = {path for path in targets if path.suffix == ".md" and path.is_file()} - found
        found |= new
        waiting += new
    assert not [relative(path) for path in PAGES[1:] if path.resolve() not in found]


def test_json_in_lines_is_the_same_value() -> None:
    value = {
        "numbers": [k / 7 for k in range(5000)],
        "records": [{"seed": k, "rows": [[k, k + 1]] * 300} for k in range(9)],
        "empty": {"list": [], "dict": {}, "none": None, "text": "Å, x"},
    }
    text = records.json_text(value)
    assert json.loads(text) == value
    assert text.endswith("}\n")
    lines = text.splitlines()
    assert 5 < len(lines) < 60
    assert max(map(len, lines)) < 10_100
