"""The documentation as a site that needs no network.

    python -m invariantzoo.site.build --out DIR [--root .] [--no-replays]

Takes the pages of docs/ as they are, sets the formulas of each id, adds a front page, a reference
of the public names, a replay of every id, and an order by reader and by question, and lets Zensical
make web pages of them. Replays that are there and are of the same code stay. Pages and their search
work from a disk as from a server. Says what the CPU time went to. Needs
`pip install "invariantzoo[docs]"`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import invariantzoo
from invariantzoo.envs.core.extras import require_extra
from invariantzoo.report import write_text
from invariantzoo.site import pages
from invariantzoo.site.formulas import markdown, paragraph, system_table
from invariantzoo.site.links import dead_links

NEEDS = ("zensical", "mkdocstrings", "mkdocstrings_handlers.python", "ziamath")
MADE = "made by invariantzoo.site.build; replays of code "
MARK = ".invariantzoo-site"  # a file of a folder that a later build may replace
REPLAY_BYTES = 300_000
REPLAY_FRAMES = 120
READERS = {  # who reads -> guides
    "You train agents": (
        "apis",
        "training",
        "benchmark",
        "train-a-driver",
        "write-your-own-system",
    ),
    "You study physics": ("fields-from-learning",),
    "You have molecules": ("molecules", "water-paper"),
    "You want an optimizer": ("optimizer", "optimizer-derived"),
}
REFERENCE = {  # a page of the reference -> where its names come from
    "Environments": ("", "envs.core"),
    "Physics": ("envs.dirac", "envs.core.physics"),
    "Molecules": ("envs.molecules",),
    "Policies": ("agents",),
    "Training and scores": ("training.rl", "training.runs"),
    "Optimizer": ("training.optim",),
    "Geometry and regimes": ("training.geometry",),
}
EXTENSION = """from griffe import Extension
from invariantzoo.site.docstrings import listed


class NamedLines(Extension):
    def on_object(self, *, obj, **_):
        if obj.docstring is not None:
            obj.docstring.value = listed(obj.docstring.value)
"""  # of the reference: what it makes of every docstring
SHIM = "scripts/iframe-worker.js"  # by this name Zensical takes none from elsewhere
SYSTEM = "\n## The system\n"
_BLOCK = re.compile(r"^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")


def main() -> None:
    """Make the site; exit code 1 if a link in it leads nowhere."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True, help="folder of the site")
    parser.add_argument("--root", type=Path, default=Path("."), help="where README.md stands")
    parser.add_argument("--no-replays", action="store_true", help="leave the replays out")
    args = parser.parse_args()
    begun = time.perf_counter()
    try:
        spent = build(args.root, args.out, replays=not args.no_replays)
    except (ValueError, OSError, ImportError) as error:
        parser.error(" ".join(str(error).split()))
    except KeyboardInterrupt:
        print(f"interrupted: {args.out} is as it was", file=sys.stderr)
        sys.exit(130)
    before = _cpu_seconds()
    dead = dead_links(args.out, outside=("replays/",))
    spent["links"] = _cpu_seconds() - before
    for link in dead:
        print(f"dead link: {link}", file=sys.stderr)
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in spent.items())
    print(f"{parts} CPU s; {time.perf_counter() - begun:.0f} s in all")
    print(f"wrote {args.out / 'index.html'}")
    sys.exit(1 if dead else 0)


def build(root: Path, out: Path, *, replays: bool = True) -> dict[str, float]:
    """Make the site of the project at `root` in the folder `out`, which appears whole.

    Returns the CPU seconds of its parts. Raises ModuleNotFoundError if Zensical is missing, and
    ValueError if `root` has no docs, `out` is a folder of something else, or a page cannot be made.
    """
    for name in NEEDS:
        require_extra(name, "docs")
    if not (root / "docs/index.md").exists():
        raise ValueError(f"--root {str(root)!r} has no docs/index.md")
    if out.exists() and any(out.iterdir()) and not (out / MARK).exists():
        raise ValueError(f"--out {str(out)!r} is a folder of something else: choose another")
    out.parent.mkdir(parents=True, exist_ok=True)
    times, code = [_cpu_seconds()], _code() if replays else ""
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        stage = Path(folder)
        _stage(root, stage, replays)
        times.append(_cpu_seconds())
        _zensical(stage)
        times.append(_cpu_seconds())
        site = stage / "site"
        if replays:
            make_replays(out, site, code)
        times.append(_cpu_seconds())
        write_text(site / MARK, f"{MADE}{code}\n")
        if out.exists():
            shutil.rmtree(out)
        os.replace(site, out)
    seconds = [after - before for before, after in itertools.pairwise(times)]
    return dict(zip(("sources", "pages", "replays"), seconds, strict=True))


def _cpu_seconds() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def _stage(root: Path, stage: Path, replays: bool) -> None:
    """Sources of all pages, the configuration, and the package as the reference reads it."""
    docs = stage / "docs"
    shutil.copytree(root / "docs", docs, ignore=shutil.ignore_patterns("results"))
    for path in docs.glob("*.md"):
        text = _with_files(path.read_text(encoding="utf-8"), root, docs)
        write_text(path, markdown(text))
    for path in docs.glob("environments/*.md"):
        write_text(path, environment(path.read_text(encoding="utf-8"), path.stem, replays))
    readme = (root / "README.md").read_text(encoding="utf-8")
    index = (root / "docs/index.md").read_text(encoding="utf-8")
    write_text(docs / "index.md", front(readme, index))
    for name, text in reference().items():
        write_text(docs / "reference" / name, text)
    _link_package(stage / "source" / "invariantzoo")
    (docs / "fonts").mkdir()
    (docs / "scripts").mkdir()
    (docs / "styles").mkdir()
    font = Path(str(importlib.util.find_spec("ziamath").origin)).parent  # type: ignore[union-attr]
    shutil.copy(font / "fonts/STIXTwoMath-Regular.ttf", docs / "fonts")
    shutil.copy(Path(__file__).with_name("site.css"), docs / "styles")
    shutil.copy(Path(__file__).with_name("iframe-worker.js"), docs / SHIM)
    write_text(stage / "names.py", EXTENSION)
    write_text(stage / "zensical.toml", _toml(_config(docs)))


def _link_package(folder: Path) -> None:
    """The package as it is imported, out of links to where its parts lie."""
    folder.mkdir(parents=True)
    home = Path(str(invariantzoo.__file__)).parent
    for path in home.iterdir():
        (folder / path.name).symlink_to(path)
    for part in ("agents", "envs", "training"):
        spec = importlib.util.find_spec(f"invariantzoo.{part}")
        if spec is not None and spec.origin is not None and not (folder / part).exists():
            (folder / part).symlink_to(Path(spec.origin).parent)


def environment(text: str, id: str, replays: bool) -> str:
    """The page of an id with its formulas set and its replay before its system."""
    before, _, rest = text.partition(SYSTEM)
    own, _, after = rest.partition("\n## ")
    own = _BLOCK.sub(lambda match: f"{system_table(match[1])}\n", own)
    own = "\n\n".join(paragraph(part.strip("\n")) for part in own.split("\n\n"))
    replay = _replay(id) if replays else ""
    return f"{markdown(before)}{replay}{SYSTEM}{own}\n\n{markdown(f'## {after}')}"


def _replay(id: str) -> str:
    address = f"../replays/{id}.html"
    return (
        f"\n## Replay\n\nPlay, pause, scrub, click an agent; [alone on a page]({address}).\n\n"
        f'<iframe class="replay" src="{address}#paused" title="a replay of {id}" loading="lazy">'
        "</iframe>\n"
    )


def _with_files(text: str, root: Path, docs: Path) -> str:
    """A page whose links to code outside docs/ lead to pages that show it; writes these."""

    def shown(match: re.Match[str]) -> str:
        path = root / match[2].removeprefix("../")
        if not match[2].startswith("../") or path.suffix != ".py" or not path.exists():
            return match[0]
        code = path.read_text(encoding="utf-8").rstrip()
        write_text(docs / f"files/{path.stem}.md", f"# {path.name}\n\n```python\n{code}\n```\n")
        return f"{match[1]}files/{path.stem}.md{match[3]}"

    return _LINK.sub(shown, text)


def front(readme: str, index: str) -> str:
    """The front page: how the README begins, the index without its beginning, how to install."""
    readme = _LINK.sub(lambda m: m[1] + m[2].removeprefix("docs/") + m[3], readme)
    first, _, _ = readme.partition("\n## Systems")
    installing = readme.partition("\n## Installing\n")[2].partition("\n## ")[0].strip()
    _, _, rest = index.partition("\n## Where to begin")
    body = f"{first.rstrip()}\n\n## Where to begin{rest.rstrip()}"
    return f"{body}\n\n## Installing\n\n{installing}\n"


def reference() -> dict[str, str]:
    """Pages with every public name, by their file names."""
    texts, left = {}, set(invariantzoo.__all__) - {"__version__"}
    for title, homes in REFERENCE.items():
        names = sorted((name for name in left if _home(name, homes)), key=str.lower)
        left -= set(names)
        blocks = "".join(f"\n::: invariantzoo.{name}\n" for name in names)
        intro = f"Names of `invariantzoo`: {', '.join(f'`{name}`' for name in names)}.\n"
        texts[f"{_file(title)}.md"] = f"# {title}\n\n{intro}{blocks}"
    if left:
        raise ValueError(f"{min(left)} is in no page of the reference: see REFERENCE")
    return texts


def _home(name: str, homes: tuple[str, ...]) -> bool:
    """Whether a public name comes from one of these modules, and from no closer one elsewhere."""
    module = invariantzoo._MODULES.get(name, "")
    every = [home for group in REFERENCE.values() for home in group]
    closest = max(
        (home for home in every if home == module or module.startswith(f"{home}.") or not home),
        key=len,
    )
    return closest in homes


def _file(title: str) -> str:
    return title.lower().replace(" ", "-")


def navigation(docs: Path) -> list[Any]:
    """Every page, by reader, library, system and question."""

    def entries(names: Any) -> list[Any]:
        return [f"{name}.md" for name in names if (docs / f"{name}.md").exists()]

    grouped = {name for names in READERS.values() for name in names} | set(pages.LIBRARIES)
    others = [name for name in pages.GUIDES if name not in grouped and name != "index"]
    guides = [{reader: entries(names)} for reader, names in READERS.items()]
    return [
        {"Home": "index.md"},
        *guides,
        {"Tutorials by library": entries(pages.LIBRARIES)},
        {"Systems": [f"environments/{id}.md" for id in pages.own_ids()]},
        {"Results": [{question: entries(names)} for question, names in pages.RESULTS.items()]},
        {"Reference": [f"reference/{_file(title)}.md" for title in REFERENCE]},
        {"More": entries(others)},
    ]


def _config(docs: Path) -> dict[str, Any]:
    """What Zensical is told."""
    palette = [
        {"scheme": scheme, "primary": "blue-grey", "toggle": {"icon": icon, "name": name}}
        for scheme, icon, name in (
            ("slate", "lucide/sun", "light"),
            ("default", "lucide/moon", "dark"),
        )
    ]
    features = ("navigation.top", "navigation.path", "content.code.copy", "search.highlight")
    options: dict[str, Any] = {
        "docstring_style": "google",
        "show_source": False,
        "show_root_heading": True,
        "show_root_full_path": False,
        "separate_signature": True,
        "show_signature_annotations": True,
        "members_order": "source",
        "filters": ["!^_"],
        "heading_level": 2,
    }
    options["extensions"] = ["names.py"]
    handler = {"paths": ["source"], "options": options}
    return {
        "project": {
            "site_name": "InvariantZoo",
            "docs_dir": "docs",
            "site_dir": "site",
            "use_directory_urls": False,
            "extra_css": ["styles/site.css"],
            "nav": navigation(docs),
            "theme": {"language": "en", "font": False, "features": features, "palette": palette},
            "markdown_extensions": {
                "attr_list": {},
                "md_in_html": {},
                "tables": {},
                "toc": {"permalink": True},
                "pymdownx": {"highlight": {"pygments_lang_class": True}, "superfences": {}},
            },
            "plugins": {"mkdocstrings": {"handlers": {"python": handler}}, "offline": {}},
            "extra": {"polyfills": [{"path": SHIM}]},
        }
    }


def _toml(value: dict[str, Any]) -> str:
    """A dictionary as TOML; values inside tables are inline."""
    lines = []
    for name, item in value["project"].items():
        lines.append(f"{name} = {_inline(item)}")
    return "[project]\n" + "\n".join(lines) + "\n"


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(
            f"{json.dumps(str(name))} = {_inline(item)}" for name, item in value.items()
        )
        return f"{{ {inner} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_inline(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False)


def _zensical(stage: Path) -> None:
    """Make the pages; ValueError with what Zensical said if one is missing."""
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "-f", "zensical.toml"],
        cwd=stage,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1", "PYTHONWARNINGS": "ignore"},
    )
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    docs, site = stage / "docs", stage / "site"
    wanted = [path.relative_to(docs).with_suffix(".html") for path in docs.rglob("*.md")]
    wanted = [path.with_stem("index") if path.stem == "README" else path for path in wanted]
    lost = [path for path in wanted if not (site / path).exists()]
    if done.returncode or lost or "Traceback" in said:
        named = f"{lost[0]} was not made: " if lost else ""
        raise ValueError(f"zensical: {named}{' '.join(said.split())[-1500:]}")


def make_replays(before: Path, site: Path, code: str) -> None:
    """A replay of every id in a site; those of the site `before` stay if they are of this code."""
    mark = before / MARK
    if mark.exists() and mark.read_text(encoding="utf-8") == f"{MADE}{code}\n":
        shutil.copytree(before / "replays", site / "replays")
        return
    (site / "replays").mkdir()
    paths = [str(site / f"replays/{id}.html") for id in pages.own_ids()]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(make_replay, pages.own_ids(), paths))


def make_replay(id: str, path: str) -> None:
    """A small replay of an id as its film has it."""
    import torch

    from invariantzoo import options
    from invariantzoo.agents.player import Player
    from invariantzoo.agents.policy import seen_dtype
    from invariantzoo.envs.core.vector import VectorEnv
    from invariantzoo.training.runs.replay import replaying

    torch.set_num_threads(1)
    film = invariantzoo.spec(id).film
    system = invariantzoo.make_system(id, **film.parameters)
    policy = options.load_policy(film.policy or "random", system)
    steps = film.steps or system.horizon
    again, dtype = film.skip + steps > system.horizon, seen_dtype(policy)
    env = VectorEnv(system, 1, seed=0, autoreset=again, dtype=dtype)
    observation, player = env.reset(), Player(env, policy, deterministic=False)
    about = f"policy {film.policy or 'random'}"
    every = max(film.every, -(-steps // REPLAY_FRAMES))
    settings: dict[str, Any] = {"skip": film.skip, "every": every, "most_bytes": REPLAY_BYTES}
    frames = steps // every + 1
    with replaying(path, env, title=id, subtitle=about, frames=frames, **settings) as shoot:
        shoot(None)
        for _ in range(film.skip + steps):
            step = player.step(observation)
            observation = step.observation
            shoot(step)
            if step.done.all() and not env.autoreset:
                return


def _code() -> str:
    """A digest of the code that replays come from."""
    digest = hashlib.sha256()
    for part in ("agents", "envs", "training"):
        home = Path(str(importlib.util.find_spec(f"invariantzoo.{part}").origin))  # type: ignore[union-attr]
        for path in sorted(home.parent.rglob("*")):
            if path.suffix in (".py", ".js", ".css", ".html"):
                digest.update(path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
