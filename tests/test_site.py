"""The documentation as a site: formulas, order, links, and the pages in a browser.

Building it needs `pip install "invariantzoo[docs]"`, and a browser what `browser.py` says; the
tests skip where they are absent.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browser import Tab, browser

import invariantzoo
from invariantzoo.site import build, pages
from invariantzoo.site.docstrings import listed
from invariantzoo.site.formulas import markdown, paragraph, system_table, typeset
from invariantzoo.site.links import dead_links

ROOT = Path(__file__).resolve().parent.parent
MATH = re.compile(r"<math>.*?</math>", re.S)


def words(html: str) -> str:
    """What stands outside formulas."""
    return " ".join(re.sub("<[^>]*>", "", MATH.sub("$", html)).split())


@pytest.mark.parametrize(
    ("text", "outside"),
    [
        (
            "position x_i and last move m_i of every atom",
            "position $ and last move $ of every atom",
        ),
        ("x_i += v_i dt, |a_i| <= max_acceleration; discs pass", "$, $; discs pass"),
        ("half the energies of the atom's pairs", "half the energies of the atom's pairs"),
        ("a step of the walk; A lone flip", "a step of the walk; A lone flip"),
        ("a in [-1, 1], the heading", "$, the heading"),
        ("up to 4 x 4, by transfer", "up to $, by transfer"),
        ("as half their sum and half", "as half their sum and half"),
        ("see `exact.py` (Peretto 1984).", "see exact.py (Peretto 1984)."),
        ('update = "parallel": all at once', 'update = "parallel": all at once'),
        ("if s < 3 & t", "if $ &amp; t"),
    ],
)
def test_formulas_are_told_from_words(text: str, outside: str) -> None:
    made = typeset(text)
    assert words(made).replace("&amp; $", "&amp; t") == outside


def test_formulas_are_set() -> None:
    assert typeset("x_i") == "<math><msub><mi>x</mi><mrow><mi>i</mi></mrow></msub></math>"
    square = typeset("h_i q_i'^2")
    assert "<msup>" in square
    assert "′" in square
    assert "<msqrt>" in typeset("a square of side sqrt(N pi R^2 / cover)")
    assert "<msubsup>" in typeset("kappa_i^{1/2}")
    half = "<mn>1</mn><mo>/</mo><mn>2</mn></mrow></msup></math>"
    assert typeset("C^1/2").endswith(half)
    assert typeset("C^-1/2").endswith(half)
    assert not typeset("C^1 / 2").endswith(half)
    assert "⟨" in typeset("<w^2> = eta")
    assert "×" in typeset("I4 = r x u")
    assert "∑" in typeset("sum_j J_ij s_j")
    assert "&lt;b&gt;" in typeset("`<b>`")


@pytest.mark.parametrize("id", pages.own_ids())
def test_the_formulas_of_every_id(id: str) -> None:
    """Tags close, no sign of plain text is left in a formula, no word is lost."""
    text = (ROOT / f"docs/environments/{id}.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```text\n(.*?)^```$", text, re.M | re.S):
        made = system_table(block)
        opened: list[str] = []
        for closing, tag, single in re.findall(r"<(/?)([a-z]+)[^>]*?(/?)>", made):
            if closing:
                assert opened.pop() == tag
            elif not single:
                opened.append(tag)
        assert opened == []
        for formula in MATH.findall(made):
            left = re.sub("<mtext>[^<]*</mtext>|<[^>]*>", "", formula)
            assert not re.search(r"[_^`]|\b(sum|phi|alpha|sqrt)\b", left), left
        plain = set(re.findall(r"\b[a-z]{4,}\b", re.sub("`[^`]*`", "", block)))
        kept = set(re.findall(r"\b[a-z]{4,}\b", re.sub("<[^>]*>", " ", made)))
        greek = {"alpha", "beta", "gamma", "kappa", "grad", "sqrt", "prod", "dphi"}
        lost = {word for word in plain - kept if word not in greek}
        assert not {word for word in lost if not re.search(rf"_\{{?{word}|{word}[_0-9]", block)}


def test_names_of_docstrings_become_a_list() -> None:
    text = "Does it.\n\nlr: step size,\nat least 0.  tau: of memory.\nx [n]: places."
    items = "- `lr`: step size,\n    at least 0.\n- `tau`: of memory.\n- `x [n]`: places."
    assert listed(f"{text}\n\nRaises it: no.") == f"Does it.\n\n{items}\n\nRaises it: no."


def test_formulas_in_paragraphs_are_set() -> None:
    made = paragraph("A missing one reads I1 = cutoff^2 and\n`seen` chooses; a step \\* r_i.")
    assert made.startswith("<p>A missing one reads <math>")
    assert "<code>seen</code> chooses" in made
    for text in ("Nothing is here to set.", "- x_i = 3", "[x_i](y.md)", "| x_i |", "```\nx_i\n```"):
        assert paragraph(text) == text


@pytest.mark.parametrize(
    ("text", "outside"),
    [
        (
            "It took 15 CPU s at 300 K, and s = 2 is wide.",
            "It took 15 CPU s at 300 K, and $ is wide.",
        ),
        ("Width s, T = 3: below T the agents' H and O", "Width s, $: below $ the agents' H and O"),
        ("errors of 3.4e-03; 2^64 - 1 seeds", "errors of 3.4e-03; $ seeds"),
        ("*and* at k = π, **bold** [x_i](a_b.md)", "*and* at $, **bold** [x_i](a_b.md)"),
        ("`x_i` and n_agents = 5, L-BFGS, L = 2", "`x_i` and n_agents = 5, L-BFGS, $"),
        ("| a | \\|w\\|^2 + 1 |\n| --- | --- |\n", "| a | $ |\n| --- | --- |\n"),
        ("# x_i = 3\n", "# x_i = 3\n"),
        ("```text\nx_i = 3\n```\n", "```text\nx_i = 3\n```\n"),
        ("- x_i = 3\n- that is\n", "- $\n- that is\n"),
        ("a |g - g of the data| in bins", "a |g - g of the data| in bins"),
    ],
)
def test_formulas_in_markdown_are_told_from_all_else(text: str, outside: str) -> None:
    assert MATH.sub("$", markdown(text)) == outside


def test_formulas_of_their_own_lines_are_set_apart() -> None:
    made = markdown("Two lines:\n\n    F_mu = <H_mu>   over tau1\n    |F_mu| <= 1\n\nx_i ends.\n")
    assert made.count('<p class="display">') == 2
    assert "&emsp; over" in made
    assert "\n<span><math>" in made  # a paragraph that begins with a formula stays one


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.stem)
def test_pages_keep_all_but_their_formulas(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    made = markdown(text)
    code = re.compile(r"^```.*?^```$|`[^`\n]*`", re.M | re.S)
    assert code.findall(made) == code.findall(text)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert [row.count("|") for row in made.splitlines() if row.startswith("|")] == [
        row.count("|") for row in rows
    ]
    for formula in MATH.findall(made):
        left = re.sub("<mtext>[^<]*</mtext>|<[^>]*>", "", formula)
        assert not re.search(r"[_^`]|\b(sum|phi|alpha|sqrt)\b", left), left


def test_every_public_name_is_in_the_reference() -> None:
    text = "\n".join(build.reference().values())
    names = re.findall(r"^::: invariantzoo\.(\w+)$", text, re.M)
    assert sorted(names) == sorted(set(invariantzoo.__all__) - {"__version__"})


def test_every_page_is_in_the_navigation() -> None:
    def flat(value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        else:
            for item in value.values() if isinstance(value, dict) else value:
                yield from flat(item)

    named = [name for name in flat(build.navigation(ROOT / "docs")) if "reference/" not in name]
    docs = ROOT / "docs"
    there = [*docs.glob("*.md"), *docs.glob("environments/*.md")]
    assert sorted(named) == sorted(path.relative_to(docs).as_posix() for path in there)


def test_the_front_page_has_the_film_and_the_first_example() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    text = build.front(readme, index)
    assert "](images/readme.gif)" in text
    assert "invariantzoo.parallel_env" in text
    assert "](docs/" not in text
    assert text.count("\n## Where to begin\n") == 1


def test_replays_stay_if_they_are_of_the_same_code(tmp_path: Path) -> None:
    before, site = tmp_path / "before", tmp_path / "site"
    (before / "replays").mkdir(parents=True)
    site.mkdir()
    (before / "replays/some-v0.html").write_text("a replay")
    (before / build.MARK).write_text(f"{build.MADE}abc\n")
    build.make_replays(before, site, "abc")
    assert [path.name for path in (site / "replays").iterdir()] == ["some-v0.html"]


def test_dead_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="b.html">1</a><a href="b.html#here">2</a><a href="b.html#gone">3</a>'
        '<img src="no.png"><a href="https://example.org/x">4</a><a href="#top">5</a>'
        '<iframe src="sub/c.html#frame=3"></iframe><a href="sub/">6</a>'
    )
    (tmp_path / "b.html").write_text('<p id="here"></p>')
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/c.html").write_text('<a href="../a.html">back</a><a href="lost.html">x</a>')
    dead = ["a.html: #top", "a.html: b.html#gone", "a.html: no.png", "a.html: sub/"]
    assert dead_links(tmp_path) == sorted([*dead, "sub/c.html: lost.html"])
    assert dead_links(tmp_path, outside=("sub/",)) == sorted(dead)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("zensical", reason='needs pip install "invariantzoo[docs]"')
    pytest.importorskip("ziamath", reason='needs pip install "invariantzoo[docs]"')
    pytest.importorskip("mkdocstrings", reason='needs pip install "invariantzoo[docs]"')
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="folder of something else"):
        build.build(ROOT, tmp_path)
    assert (tmp_path / "thesis.tex").exists()
    with pytest.raises(ValueError, match="has no docs"):
        build.build(tmp_path, tmp_path / "out")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address at which this machine serves a folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in build.NEEDS:
        pytest.importorskip(name, reason=f"the site needs {name}")
    out = tmp_path_factory.mktemp("site") / "out"
    build.build(ROOT, out, replays=False)
    (out / "replays").mkdir()
    build.make_replay("ising-anneal-v0", str(out / "replays/ising-anneal-v0.html"))
    return out


def test_the_site_as_a_whole(site: Path) -> None:
    """No link is dead, the reference shows signatures, replays are small."""
    assert dead_links(site, outside=("replays/",)) == []
    text = (site / "reference/optimizer.html").read_text(encoding="utf-8")
    assert 'id="invariantzoo.CGD"' in text
    assert "<code>tau1, tau2</code>" in text
    size = (site / "replays/ising-anneal-v0.html").stat().st_size
    assert 10_000 < size <= build.REPLAY_BYTES
    assert "heat-bath" in (site / "search.json").read_text(encoding="utf-8")
    code = (site / "files/ppo_single_file.html").read_text(encoding="utf-8")
    assert "make_vec" in code


def test_the_search_works_from_a_disk(site: Path) -> None:
    with browser() as chromium:
        tab = Tab(chromium, (1400, 900))
        tab.open(site / "index.html")
        tab.wait("document.querySelector('iframe[hidden]') !== null")
        tab.page.click(".md-search__button")
        tab.page.keyboard.type("heat bath", delay=20)
        for _ in range(30):  # until there is something to go to
            tab.page.wait_for_timeout(1000)
            if "heat-bath.html" in tab.page.url:
                break
            tab.page.keyboard.press("Enter")
        assert "heat-bath.html" in tab.page.url
        assert tab.complaints == []
        assert [url for url in tab.requests if not url.startswith(("file:", "data:"))] == []


def test_pages_in_a_browser(site: Path) -> None:
    """Nothing comes from elsewhere, nothing is cut at the right, formulas are drawn."""
    names = ("index", "environments/ising-anneal-v0", "scores", "reference/optimizer")
    with served(site) as address, browser() as chromium:
        for name, width in itertools.product(names, (1400, 390)):
            tab = Tab(chromium, (width, 900))
            tab.page.goto(f"{address}/{name}.html")
            tab.page.wait_for_timeout(300)
            ours = (address, "data:", f"blob:{address}")
            assert [url for url in tab.requests if not url.startswith(ours)] == []
            assert tab.run("document.querySelector('article').getBoundingClientRect().right") <= (
                width
            )
            assert tab.complaints == []
            tab.page.close()
        for id in pages.own_ids():
            tab = Tab(chromium, (390, 900))
            tab.page.goto(f"{address}/environments/{id}.html")
            cut = "[...document.querySelectorAll('article math, table.system')].filter("
            cut += "m => m.getBoundingClientRect().right > 390).map(m => m.textContent)"
            assert tab.run(cut) == [], id
            tab.page.close()
