"""Links of a folder of web pages that lead nowhere."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_ADDRESSES = {"a": "href", "img": "src", "iframe": "src", "link": "href", "script": "src"}


class _Page(HTMLParser):
    """The addresses that a page names, and the places in it that others may name."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.places: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        for name in ("id", "name"):
            self.places.add(given.get(name) or "")
        address = given.get(_ADDRESSES.get(tag, ""))
        if address:
            self.addresses.append(address)


def dead_links(folder: Path, outside: tuple[str, ...] = ()) -> list[str]:
    """What of a site in `folder` leads nowhere: "page: address", sorted.

    Addresses on other hosts are not followed. outside: pages, by their path in the folder, whose
    own links are not looked at.
    """
    pages: dict[Path, _Page] = {}
    for path in sorted(folder.rglob("*.html")):
        pages[path.resolve()] = page = _Page()
        page.feed(path.read_text(encoding="utf-8"))
    dead = set()
    for path, page in pages.items():
        name = path.relative_to(folder.resolve()).as_posix()
        if name.startswith(outside) and outside:
            continue
        for address in page.addresses:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = path
            if parts.path:
                base = folder.resolve() if parts.path.startswith("/") else path.parent
                target = (base / unquote(parts.path.lstrip("/"))).resolve()
                target = target / "index.html" if target.is_dir() else target
            place = unquote(parts.fragment)
            known = pages.get(target)
            lost = place and known is not None and place not in known.places
            if not target.exists() or (lost and "=" not in place and place != "paused"):
                dead.add(f"{name}: {address}")
    return sorted(dead)
