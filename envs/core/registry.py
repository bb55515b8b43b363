"""Ids: what exists, and how each thing is made from its id.

A system file declares its ids in a literal named SCENARIOS, which is read without importing the
file, so that `import invariantzoo` stays cheap. Others add theirs with `register` or through the
entry-point group "invariantzoo.systems" (name: the id, value: "module:Class").
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.metadata
import inspect
import math
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium
import pettingzoo

from .film import Film, film_of
from .renamed import without_former_parameters
from .validation import nearest

if TYPE_CHECKING:
    from .system import System

ENTRY_POINT_GROUP = "invariantzoo.systems"
NAMESPACE = "invariantzoo"
_ID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*-v[0-9]+")
_ENTRY_POINT = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


class ScoreScale(NamedTuple):
    """Returns of an id with default parameters that its score is measured between.

    random: mean return of the policy `random`, score 0.
    best: that of score 1: the largest that there can be if `exact`, else the best that is known.
    policy: who reaches `best`: a policy by name, or an algorithm.
    origin: where the numbers are from.
    resolution: 0, or for returns of many magnitudes how far from `best` a return is as good as
        reached: the score is then linear in the logarithm of how far it is, and 1 at most.
    """

    random: float
    best: float
    policy: str
    origin: str
    exact: bool = False
    resolution: float = 0.0

    @property
    def measure(self) -> tuple[float, float, float]:
        """All that scores depend on."""
        return self.random, self.best, self.resolution

    def score(self, mean_return: Any) -> Any:
        """A return, or an array of them, on this scale."""
        if not self.resolution:
            return (mean_return - self.random) / (self.best - self.random)
        import numpy as np

        far = np.maximum(self.best - np.asarray(mean_return), 0) / self.resolution
        whole = np.log1p((self.best - self.random) / self.resolution)
        return (1 - np.log1p(far) / whole)[()]

    def mean_return(self, score: float) -> float:
        """The return that a score stands for: what `score` undoes, below `best` at least."""
        if not self.resolution:
            return self.random + score * (self.best - self.random)
        whole = math.log1p((self.best - self.random) / self.resolution)
        return self.best - self.resolution * math.expm1((1 - score) * whole)


@dataclass(frozen=True)
class Spec:
    """An id, where its system stands ("module:Class"), and the parameters that make it.

    training: hyper-parameters by algorithm that suit this id, over the algorithm's defaults.
    package: name and version of the distribution whose entry point declares it, if one does.
    film: what windows and films of this id open with.
    variants: parameters over the id's own, each a system that tests of the contract run on too.
    score: what a score of 0 and of 1 mean; None where nobody has said so.
    """

    id: str
    entry_point: str
    summary: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    training: dict[str, dict[str, Any]] = field(default_factory=dict)
    package: str = ""
    film: Film = field(default_factory=Film)
    variants: tuple[dict[str, Any], ...] = ()
    score: ScoreScale | None = None


class BrokenPlugin(NamedTuple):
    """An id that a distribution declares but that cannot be used, and why."""

    id: str
    package: str
    error: str


_SPECS: dict[str, Spec] = {}
_CLASSES: dict[str, type[System]] = {}  # of ids that were registered by class or used already
_REFUSED: list[BrokenPlugin] = []


def register(
    id: str,
    entry_point: str | type,
    *,
    summary: str = "",
    parameters: dict[str, Any] | None = None,
    training: dict[str, dict[str, Any]] | None = None,
    film: dict[str, Any] | None = None,
    variants: Sequence[dict[str, Any]] = (),
    score: dict[str, Any] | None = None,
    replace: bool = False,
) -> None:
    """Add an id `<system>-<scenario>-v<n>`, or `<system>-v<n>`, to all registries.

    They are this one, PettingZoo's and Gymnasium's.

    entry_point: the system's class, or "module:Class", which is imported at its first use.
    film: fields of `Film` by name: what windows and films of the id open with.
    variants: parameters over `parameters`, each a system that tests of the contract run on too.
    score: fields of `ScoreScale` by name: returns that benchmarks call 0 and 1.
    replace: whether the id may stand for another class or other parameters already. The same class
    with the same parameters may be registered as often as one likes.
    Raises ValueError for an id of another form or one that is taken, for an unknown field of the
    film or a score that is no scale, for variants that are no dictionaries, and for a class that
    is no frozen dataclass with all that a System needs, or lacks one of `parameters` or of those of
    the film or a variant.
    """
    parameters, shown = dict(parameters or {}), film_of(film or {})
    named = {**parameters, **shown.parameters}
    for given in variants:
        if not isinstance(given, dict):
            raise ValueError(f"variants of {id!r}: {given!r} must be a dictionary of parameters")
        named.update(given)
    name: Any = entry_point
    if isinstance(entry_point, type):
        _require_system(id, entry_point, named)
        name = f"{entry_point.__module__}:{entry_point.__qualname__}"
    scale = None if score is None else _scale(id, score)
    rest = training or {}, "", shown, tuple(variants), scale
    _add(Spec(id, name, summary, parameters, *rest), replace)
    if isinstance(entry_point, type):
        _CLASSES[id] = entry_point


def _scale(id: str, given: dict[str, Any]) -> ScoreScale:
    """The scale of an id's score; ValueError for one that is none."""
    try:
        scale = ScoreScale(**given)
    except TypeError as error:
        raise ValueError(f"score of {id!r}: {error}") from None
    if not scale.best > scale.random:
        raise ValueError(f"score of {id!r}: best={scale.best} must exceed random={scale.random}")
    if not scale.resolution >= 0:
        raise ValueError(f"score of {id!r}: resolution={scale.resolution} must be 0 or more")
    return scale


def _add(new: Spec, replace: bool = False) -> None:
    """Put a spec into all registries, unless its id has another form or is taken."""
    id, entry_point = new.id, new.entry_point
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise ValueError(f"id {id!r} must look like 'system-scenario-v0' in lower case")
    if not isinstance(entry_point, str) or not (
        _ENTRY_POINT.fullmatch(entry_point) or "<locals>" in entry_point
    ):
        raise ValueError(f"entry_point={entry_point!r} of {id} must be a class or 'module:Class'")
    old = _SPECS.get(id)
    if old is not None and not replace:
        if old.entry_point != entry_point:
            raise ValueError(
                f"id {id!r} is taken by {old.entry_point}; choose another, or give replace=True"
            )
        if old.parameters != new.parameters:
            raise ValueError(
                f"id {id!r} is taken with parameters {old.parameters}; choose another, or give "
                "replace=True"
            )
        new = dataclasses.replace(new, package=old.package or new.package)
    _SPECS[id] = new
    _CLASSES.pop(id, None)
    full = f"{NAMESPACE}/{id}"
    pettingzoo.parallel_registry.pop(full, None)
    pettingzoo.aec_registry.pop(full, None)
    gymnasium.registry.pop(full, None)
    interfaces = f"{__name__.rpartition('.')[0]}.interfaces"
    for kind, make in (("parallel", "make_parallel"), ("aec", "make_aec")):
        pettingzoo.register(kind, full, f"{interfaces}.pettingzoo:{make}", kwargs={"id": id})
    # The id is part of the entry point's name: Gymnasium keeps kwargs named `id` for itself.
    gymnasium.register(
        full,
        entry_point=f"{interfaces}.gymnasium:make_single",
        vector_entry_point=f"{interfaces}.gymnasium:make_vector",
        kwargs={"system_id": id},
        disable_env_checker=True,
        order_enforce=False,
    )


def _require_system(id: str, cls: Any, parameters: dict[str, Any]) -> None:
    """Raise ValueError unless `cls` can be made a system with these parameters."""
    from .system import System

    if not isinstance(cls, type) or not issubclass(cls, System):
        raise ValueError(f"{_name(cls)} of {id!r} must be a class derived from System")
    undecorated = "__dataclass_params__" not in vars(cls) and inspect.get_annotations(cls)
    settings: Any = getattr(cls, "__dataclass_params__", None)
    if settings is None or not settings.frozen or undecorated:
        raise ValueError(
            f"{_name(cls)} of {id!r} must be a frozen dataclass: write @dataclass(frozen=True) "
            "above it"
        )
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise ValueError(f"{_name(cls)} of {id!r} does not define {missing}")
    _require_known(id, cls, parameters)


def _require_known(id: str, cls: type[System], names: Iterable[str]) -> None:
    from .observation import parameters as known_parameters

    known = known_parameters(cls)
    for name in names:
        if name not in known:
            hint = nearest_parameter(name, known)
            raise ValueError(f"unknown parameter {name!r} of {id}{hint} (has {', '.join(known)})")


# what Stable-Baselines3 calls it -> what it is called here
_ELSEWHERE = {"learning_rate": "lr", "n_envs": "n_worlds", "num_envs": "n_worlds"}


def nearest_parameter(name: str, known: Iterable[str]) -> str:
    """ "; did you mean …?" for a parameter; some, as an episode's length, go by several names."""
    known = list(known)
    if _ELSEWHERE.get(name) in known:
        return f"; did you mean {_ELSEWHERE[name]!r}?"
    lengths = [length for length in ("horizon", "n_sweeps") if length in known]
    if name in ("horizon", "max_cycles", "n_sweeps") and lengths:
        return f"; the length of an episode is set by {lengths[0]!r}"
    return nearest(name, known)


def _name(cls: Any) -> str:
    return getattr(cls, "__qualname__", None) or repr(cls)


def ids() -> list[str]:
    """All registered ids in alphabetical order."""
    return sorted(_SPECS)


def spec(id: str) -> Spec:
    """What is registered under `id`; "module:id" imports the module first.

    Raises KeyError with the nearest known id, ModuleNotFoundError for a module that is not there
    and ValueError for one that fails.
    """
    if not isinstance(id, str):
        raise KeyError(f"unknown id {id!r}: an id is a text (see `invariantzoo list`)")
    module, _, name = id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            raise
        except (Exception, SystemExit) as error:
            raise ValueError(f"{id!r} cannot be loaded: {_reason(error)}") from error
    name = name.removeprefix(f"{NAMESPACE}/")
    if name not in _SPECS:
        for refused in _REFUSED:
            if refused.id == name:
                raise KeyError(f"{name!r} of package {refused.package}: {refused.error}")
        raise KeyError(f"unknown id {id!r}{nearest(name, _SPECS)} (see `invariantzoo list`)")
    return _SPECS[name]


def spec_in_file(id: str) -> Spec:
    """What is registered under an id that stands in a file, for whose sake no module is imported.

    Raises KeyError for an unknown id and ValueError for "module:id" before the module is imported.
    """
    module = id.rpartition(":")[0]
    if module and module not in sys.modules:
        raise ValueError(
            f"{id!r} needs the module {module!r}, which is not imported because a file says so: "
            "import it first, or name the id on the command line"
        )
    return spec(id)


def system_class(id: str) -> type[System]:
    """The class behind an id.

    Raises ValueError, with the package if it comes from an entry point, where it cannot be loaded.
    """
    known = spec(id)
    if known.id not in _CLASSES:
        try:
            cls = _load(known)
        except (Exception, SystemExit) as error:
            package = f" of package {known.package}" if known.package else ""
            raise ValueError(f"{known.id}{package} cannot be loaded: {_reason(error)}") from error
        known = _SPECS[known.id]  # its module may have registered it again
        summary = known.summary or _first_line(cls)
        _SPECS[known.id] = dataclasses.replace(known, summary=summary)
        _CLASSES[known.id] = cls
    return _CLASSES[known.id]


def _load(known: Spec) -> type[System]:
    module, _, name = known.entry_point.partition(":")
    cls: Any = importlib.import_module(module)
    for attribute in name.split("."):
        cls = getattr(cls, attribute)
    _require_system(known.id, cls, known.parameters)
    return cls


def _reason(error: BaseException) -> str:
    """An error in one line; its type too unless it is one of ours."""
    text = " ".join(str(error).split())
    return text if type(error) is ValueError else f"{type(error).__name__}: {text}"


def _first_line(cls: type) -> str:
    """What a class says of itself, without a full stop; empty if it only has what Python made."""
    text = (vars(cls).get("__doc__") or "").strip()
    if not text or text.startswith(f"{cls.__name__}("):
        return ""
    return " ".join(text.partition("\n\n")[0].split()).removesuffix(".")


def broken_plugins() -> list[BrokenPlugin]:
    """Ids of installed distributions that cannot be used; loads all others of theirs."""
    broken = list(_REFUSED)
    for known in [known for known in _SPECS.values() if known.package]:
        try:
            make_system(known.id)
        except (Exception, SystemExit) as error:
            cause = error.__cause__ or error
            broken.append(BrokenPlugin(known.id, known.package, _reason(cause)))
    return sorted(broken)


def make_system(id: str, **parameters: Any) -> System:
    """The system of an id, with parameters over the id's own.

    Raises KeyError for an unknown id and ValueError for an unknown parameter or a bad value.
    """
    cls = system_class(id)
    parameters = without_former_parameters(id, parameters)
    _require_known(id, cls, parameters)
    return cls(**{**spec(id).parameters, **parameters})


def _scenarios(path: Path) -> dict[str, dict[str, Any]]:
    """The literal SCENARIOS of a system file, read without running the file.

    As the formatter lays it out it ends with the first brace that begins a line; to parse just that
    takes a tenth of the time that a whole file takes.
    """
    text = path.read_text(encoding="utf-8")
    if "\nSCENARIOS" not in text:
        return {}
    literal, _, _ = text.partition("\nSCENARIOS = ")[2].partition("\n}\n")
    try:
        return ast.literal_eval(literal + "\n}")
    except (SyntaxError, ValueError):
        pass  # laid out in another way
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "SCENARIOS":
            return ast.literal_eval(node.value)
    return {}


def _register_all() -> None:
    folder = Path(__file__).resolve().parent.parent
    package = __name__.rsplit(".", 2)[0]
    for path in sorted([*folder.glob("[a-z]*.py"), *folder.glob("[a-z]*/*.py")]):
        module = ".".join([package, *path.relative_to(folder).with_suffix("").parts])
        for id, given in _scenarios(path).items():
            given = dict(given)
            register(id, f"{module}:{given.pop('system')}", **given)
    entries = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    for entry in sorted(entries, key=lambda entry: (_package(entry), entry.name)):
        try:
            _add(Spec(entry.name, entry.value, package=_package(entry)))
        except ValueError as error:  # a fault of one distribution is no reason to do without others
            _REFUSED.append(BrokenPlugin(entry.name, _package(entry), str(error)))


def _package(entry: importlib.metadata.EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"


_register_all()
