"""Libraries that only some users need: what is said where one of them is missing."""

from __future__ import annotations

import importlib.util


def require_extra(module: str, extra: str, library: str = "") -> None:
    """Raise ModuleNotFoundError, with the command that helps, unless `module` can be imported.

    extra: which of this package's optional dependencies brings it.  library: its name for people.
    """
    require_packages(module, f'"invariantzoo[{extra}]"', library)


def require_packages(module: str, packages: str, library: str = "") -> None:
    """As `require_extra`, for what is in no extra, as others need other versions beside it.

    packages: what pip is to install.
    """
    if not _can_be_found(module):
        raise ModuleNotFoundError(f"{library or module} is not installed: pip install {packages}")


def _can_be_found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor is what it would be a part of
        return False
