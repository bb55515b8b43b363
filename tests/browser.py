"""A real browser without a window, for tests of pages; they skip where there is none."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@contextmanager
def browser() -> Iterator[Any]:
    """A browser of playwright's; skips the test without playwright or a Chromium on the PATH."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="a page in a browser needs: pip install playwright"
    )
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("a page in a browser needs Chromium on the PATH")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield opened
        finally:
            opened.close()


class Tab:
    """A page in a browser, and what its console and its network said."""

    def __init__(self, browser: Any, size: tuple[int, int] = (1200, 760)) -> None:
        self.page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self, path: Path, at: str = "") -> None:
        """Load a file anew, with what stands behind its address."""
        self.page.goto("about:blank")
        self.page.goto(f"file://{path}{at}")

    def run(self, script: str) -> Any:
        """The value of a line of JavaScript."""
        return self.page.evaluate(script)

    def wait(self, script: str, seconds: float = 30.0) -> None:
        """Until a line of JavaScript is true; asked from outside, as pages may forbid eval."""
        end = time.monotonic() + seconds
        while not self.run(script):
            if time.monotonic() > end:
                raise TimeoutError(f"{script} did not come true in {seconds:g} s")
            self.page.wait_for_timeout(20)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)
