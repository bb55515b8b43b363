"""What the reference makes of docstrings: lines "name: meaning" become a list."""

from __future__ import annotations

import re

_NAME = r"[a-z]\w*(?:, \w+)*(?: \[[^\]]*\])?"
_NAMED = re.compile(rf"^({_NAME}): (.*)$")
_NEXT = re.compile(rf"(?<=\.) {{2,}}(?={_NAME}: )")  # another one on the same line


def listed(text: str) -> str:
    """A docstring in Markdown: each line "name: meaning", with those that go on, is an item."""
    out: list[str] = []
    inside = False
    for paragraph in text.split("\n\n"):
        lines: list[str] = []
        for line in _NEXT.sub("\n", paragraph).splitlines():
            named = _NAMED.match(line)
            if named:
                lines.append(f"- `{named[1]}`: {named[2]}")
                inside = True
            elif inside and line.strip() and not line.startswith("- "):
                lines.append(f"    {line.strip()}")
            else:
                lines.append(line)
        first = next((k for k, line in enumerate(lines) if line.startswith("- `")), None)
        if first:
            lines.insert(first, "")
        out.append("\n".join(lines))
        inside = False
    return "\n\n".join(out)
