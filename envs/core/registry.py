"""Ids: what exists, and how each thing is made from its id.

A system file declares its ids in a literal named SCENARIOS, which is read without importing the
file, so that `import invariantzoo` stays cheap. Others add theirs with `register` or through the
entry-point group "invariantzoo.systems" (name: the id, value: "module:Class").
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import pettingzoo

if TYPE_CHECKING:
    from .system import System

ENTRY_POINT_GROUP = "invariantzoo.systems"
NAMESPACE = "invariantzoo"
_ID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+-v[0-9]+")


@dataclass(frozen=True)
class Spec:
    """An id, where its system stands ("module:Class"), and the parameters that make it.

    training: hyper-parameters by algorithm that suit this id, over the algorithm's defaults.
    """

    id: str
    entry_point: str
    summary: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    training: dict[str, dict[str, Any]] = field(default_factory=dict)


_SPECS: dict[str, Spec] = {}


def register(
    id: str,
    entry_point: str | type,
    *,
    summary: str = "",
    parameters: dict[str, Any] | None = None,
    training: dict[str, dict[str, Any]] | None = None,
) -> None:
    """Add an id `<system>-<scenario>-v<n>` to this registry, PettingZoo's and Gymnasium's.

    entry_point: the system's class, or "module:Class". Registering an id again replaces it.
    Raises ValueError for an id of another form.
    """
    if not _ID.fullmatch(id):
        raise ValueError(f"id {id!r} must look like 'system-scenario-v0' in lower case")
    if isinstance(entry_point, type):
        entry_point = f"{entry_point.__module__}:{entry_point.__qualname__}"
    _SPECS[id] = Spec(id, entry_point, summary, parameters or {}, training or {})
    full = f"{NAMESPACE}/{id}"
    pettingzoo.parallel_registry.pop(full, None)
    pettingzoo.aec_registry.pop(full, None)
    gymnasium.registry.pop(full, None)
    core = __name__.rpartition(".")[0]
    pettingzoo.register("parallel", full, f"{core}.parallel:make_parallel", kwargs={"id": id})
    pettingzoo.register("aec", full, f"{core}.parallel:make_aec", kwargs={"id": id})
    # The id is part of the entry point's name: Gymnasium keeps kwargs named `id` for itself.
    gymnasium.register(
        full,
        entry_point=f"{core}.gym:make_single",
        vector_entry_point=f"{core}.gym:make_vector",
        kwargs={"system_id": id},
        disable_env_checker=True,
        order_enforce=False,
    )


def ids() -> list[str]:
    """All registered ids in alphabetical order."""
    return sorted(_SPECS)


def spec(id: str) -> Spec:
    """What is registered under `id`; "module:id" imports the module first.

    Raises KeyError with the nearest known id.
    """
    module, _, name = id.rpartition(":")
    if module:
        importlib.import_module(module)
    name = name.removeprefix(f"{NAMESPACE}/")
    if name not in _SPECS:
        from .system import nearest

        raise KeyError(f"unknown id {id!r}{nearest(name, _SPECS)} (see `invariantzoo list`)")
    return _SPECS[name]


def system_class(id: str) -> type[System]:
    """The class behind an id."""
    module, _, name = spec(id).entry_point.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def make_system(id: str, **parameters: Any) -> System:
    """The system of an id, with parameters over the id's own.

    Raises KeyError for an unknown id and ValueError for an unknown parameter or a bad value.
    """
    from .system import nearest
    from .system import parameters as known_parameters

    cls = system_class(id)
    known = known_parameters(cls)
    for name in parameters:
        if name not in known:
            hint = nearest(name, known)
            raise ValueError(f"unknown parameter {name!r} of {id}{hint} (has {', '.join(known)})")
    return cls(**{**spec(id).parameters, **parameters})


def _scenarios(path: Path) -> dict[str, dict[str, Any]]:
    """The literal SCENARIOS of a system file, read without running the file."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "SCENARIOS":
            return ast.literal_eval(node.value)
    return {}


def _register_all() -> None:
    folder = Path(__file__).resolve().parent.parent
    package = __name__.rsplit(".", 2)[0]
    for path in sorted(folder.glob("[a-z]*.py")):
        for id, given in _scenarios(path).items():
            given = dict(given)
            register(id, f"{package}.{path.stem}:{given.pop('system')}", **given)
    for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        register(entry.name, entry.value)


_register_all()
