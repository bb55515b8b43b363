"""What pyproject.toml cannot say: the description that a package index shows."""

import re
from pathlib import Path

from setuptools import setup

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:)[^)\s]+\)")
_NOTE = (
    "*Pages that this text names stand in `docs/` of the source distribution, and the files beside "
    "its README.*\n\n"
)


def long_description(readme: str) -> str:
    """The README without links and pictures of the repository, which an index does not hold."""
    text = _LINK.sub(lambda link: "" if link[1] else link[2], readme)
    title, _, rest = re.sub(r"\n{3,}", "\n\n", text).partition("\n\n")
    return f"{title}\n\n{_NOTE}{rest}"


if __name__ == "__main__":
    setup(
        long_description=long_description(Path("README.md").read_text(encoding="utf-8")),
        long_description_content_type="text/markdown",
    )
