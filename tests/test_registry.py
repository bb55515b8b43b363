"""Ids: what may be registered, and packages that declare ids which cannot be used."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from systems import Hold

import invariantzoo
from invariantzoo.envs.core import registry
from invariantzoo.envs.core.observation import parameter_values
from invariantzoo.envs.core.system import System
from invariantzoo.site.pages import own_ids

NEW = "test-registry-v0"


@pytest.fixture(autouse=True)
def _ids_as_before() -> Iterator[None]:
    specs, classes = dict(registry._SPECS), dict(registry._CLASSES)
    yield
    for table, before in ((registry._SPECS, specs), (registry._CLASSES, classes)):
        table.clear()
        table.update(before)  # type: ignore[arg-type]
    gymnasium.registry.pop(f"invariantzoo/{NEW}", None)


ODD = ("nan", True, None, -1, 0, 1, 2.5, 1e400, 1j, b"x", (), (2, 1), (math.nan, 1), {}, {1})


@pytest.mark.parametrize("id", own_ids())
def test_a_parameter_of_another_kind_is_refused_in_words_or_kept_as_it_is(id: str) -> None:
    """As --set may give it; what is taken is the same again from config.json."""
    for name in parameter_values(invariantzoo.make_system(id)):
        for value in ODD:
            try:
                made = invariantzoo.make_system(id, **{name: value})
            except ValueError:
                continue
            kept = json.loads(json.dumps(parameter_values(made), allow_nan=False))
            assert rebuilt(id, kept) == made, (name, value)


def rebuilt(id: str, kept: dict[str, Any]) -> System:
    """A system of parameters in JSON, whose lists are tuples."""

    def tuples(value: Any) -> Any:
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    return invariantzoo.make_system(id, **{name: tuples(value) for name, value in kept.items()})


@pytest.mark.parametrize("number", [1.5, True, "3"])
def test_a_number_of_users_of_a_road_is_a_whole_one(number: Any) -> None:
    """It was cut to one that is, or taken from a text."""
    with pytest.raises(ValueError, match=r"n_cars=.* must be a whole number"):
        invariantzoo.make_system("particles-traffic-v0", n_cars=number)


@dataclass(frozen=True)
class Other(Hold):
    """Another one.

    With more to say.
    """


@dataclass
class Thawed:
    n_agents: int = 1


class Plain(Hold):
    pass


class Forgotten(Hold):
    horizon: int = 5  # without the decorator it is no default of the class


class NoDataclass(System):
    pass


@dataclass(frozen=True)
class Half(System):
    n_agents: int = 1
    horizon: int = 5


def test_a_taken_id_is_refused_and_stays_what_it_was() -> None:
    before = invariantzoo.spec("particles-crowd-v0")
    for cls in (Other, "elsewhere:Other"):
        with pytest.raises(ValueError, match=r"-crowd-v0' is taken by .*envs\.particles\.crowd:"):
            invariantzoo.register("particles-crowd-v0", cls)
    with pytest.raises(ValueError, match="is taken with parameters"):
        invariantzoo.register(
            "particles-crowd-v0", before.entry_point, parameters={**before.parameters, "dt": 0.1}
        )
    assert invariantzoo.spec("particles-crowd-v0") == before
    assert type(invariantzoo.make_system("particles-crowd-v0")).__name__ in before.entry_point


def test_the_same_class_may_come_again() -> None:
    for summary in ("first", "second"):
        invariantzoo.register(NEW, Hold, summary=summary, parameters={"horizon": 9})
        invariantzoo.register(NEW, "systems:Hold", summary=summary, parameters={"horizon": 9})
        assert invariantzoo.spec(NEW).summary == summary
    assert invariantzoo.make_system(NEW).horizon == 9
    with pytest.raises(ValueError, match="is taken"):
        invariantzoo.register(NEW, Hold)


def test_replace() -> None:
    invariantzoo.register(NEW, Hold)
    assert type(invariantzoo.make_system(NEW)) is Hold
    invariantzoo.register(NEW, Other, parameters={"horizon": 4}, replace=True)
    assert type(invariantzoo.make_system(NEW)) is Other
    assert invariantzoo.parallel_env(NEW).system.horizon == 4
    assert gymnasium.make(f"invariantzoo/{NEW}").unwrapped._env.system.horizon == 4  # type: ignore[attr-defined]
    invariantzoo.register(NEW, "systems:Hold", replace=True)
    assert type(invariantzoo.make_system(NEW)) is Hold


def test_a_class_of_a_function_works() -> None:
    @dataclass(frozen=True)
    class Local(Hold):
        extra: int = 3

    invariantzoo.register(NEW, Local)
    assert invariantzoo.make_system(NEW, extra=4).extra == 4  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Thawed, "Thawed of '.*' must be a class derived from System"),
        (int, "int of '.*' must be a class derived from System"),
        (Forgotten, "Forgotten of '.*' must be a frozen dataclass"),
        (NoDataclass, "NoDataclass of '.*' must be a frozen dataclass"),
        (Half, "Half of '.*' does not define action_space, bounds, initial"),
        (Hold(), r"entry_point=Hold\(.*\) of .* must be a class or 'module:Class'"),
        (None, "entry_point=None of .* must be a class or 'module:Class'"),
        ("systems.Hold", "must be a class or 'module:Class'"),
        ("systems:Hold [fast]", "must be a class or 'module:Class'"),
    ],
)
def test_what_is_no_system_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        invariantzoo.register(NEW, wrong)
    assert NEW not in invariantzoo.ids()


@pytest.mark.parametrize("name", ["Thawed", "Forgotten", "Half", "nothing"])
def test_what_is_no_system_is_refused_when_it_is_loaded(name: str) -> None:
    invariantzoo.register(NEW, f"{__name__}:{name}")
    with pytest.raises(ValueError, match=f"^{NEW} cannot be loaded: .*{name}"):
        invariantzoo.make_system(NEW)


def test_a_class_without_fields_of_its_own_needs_no_decorator() -> None:
    invariantzoo.register(NEW, Plain)
    assert type(invariantzoo.make_system(NEW)) is Plain


@pytest.mark.parametrize("id", [None, 3, b"particles-crowd-v0", ["particles-crowd-v0"]])
def test_an_id_is_a_text(id: Any) -> None:
    with pytest.raises(KeyError, match=r"unknown id .*: an id is a text"):
        invariantzoo.make_system(id)


def test_parameters_are_checked() -> None:
    with pytest.raises(ValueError, match=r"unknown parameter 'noize' of .*; did you mean 'noise'"):
        invariantzoo.register(NEW, Hold, parameters={"noize": 1.0})
    invariantzoo.register(NEW, "systems:Hold", parameters={"noize": 1.0})
    with pytest.raises(ValueError, match=r"unknown parameter 'noize'"):
        invariantzoo.make_system(NEW)


@pytest.mark.parametrize("id", ["Crowd-v0", "crowd", "a-b", "a-b-v0 ", "-v0", "a--v0", "", None, 3])
def test_ids_have_a_form(id: Any) -> None:
    with pytest.raises(ValueError, match="must look like"):
        invariantzoo.register(id, Hold)


def test_a_summary_comes_from_the_class() -> None:
    invariantzoo.register(NEW, f"{__name__}:Other")
    invariantzoo.make_system(NEW)
    assert invariantzoo.spec(NEW).summary == "Another one"


GOOD = '''
from dataclasses import dataclass
from systems import Hold

@dataclass(frozen=True)
class Good(Hold):
    """Holds a point
    for others.
    """

@dataclass(frozen=True)
class Undocumented(Hold):
    pass

@dataclass(frozen=True)
class Fussy(Hold):
    def __post_init__(self):
        raise TypeError("never satisfied")
'''
ENTRY_POINTS = {
    "good": """
plugin-good-v0 = plug_good:Good
plugin-bare-v0 = plug_good:Undocumented
""",
    "worse": """
plugin-missing-v0 = no_such_module:Crowd
plugin-raises-v0 = plug_raises:Crowd
plugin-exits-v0 = plug_exits:Crowd
plugin-no-system-v0 = plug_good:dataclass
plugin-fussy-v0 = plug_good:Fussy
plugin-good-v0 = plug_raises:Good
Plugin_Bad = plug_good:Good
particles-crowd-v0 = plug_good:Good
""",
}


def test_broken_packages(tmp_path: Path) -> None:
    """They break nothing but themselves, and `list` says whose they are and what is wrong."""
    (tmp_path / "plug_good.py").write_text(GOOD)
    (tmp_path / "plug_raises.py").write_text("import numpy as np\n\n1 / 0\n")
    (tmp_path / "plug_exits.py").write_text("import sys\n\nsys.exit('no license')\n")
    for package, declared in ENTRY_POINTS.items():
        folder = tmp_path / f"zoo_{package}-1.5.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: zoo-{package}\nVersion: 1.5\n"
        )
        (folder / "entry_points.txt").write_text(f"[invariantzoo.systems]\n{declared}")
    code = """
import sys, invariantzoo
from invariantzoo.__main__ import main
assert "plug_good" not in sys.modules
assert "envs.particles" in type(invariantzoo.make_system("particles-crowd-v0")).__module__
codes = [main(["list"]), main(["list", "--json"])]
for id in ("plugin-raises-v0", "Plugin_Bad"):
    codes.append(main(["rollout", id, "--policy", "random", "--n-steps", "1"]))
print(codes)
"""
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parent)])
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    table, _, rest = run.stdout.partition("\n{")
    found, _, codes = rest.rpartition("}")
    text = table.splitlines()
    taken = [line for line in text if " is taken by " in line]
    lines = {line.split()[0]: line.split(maxsplit=1)[1:] for line in text if line not in taken}
    assert lines["plugin-good-v0"] == ["Holds a point for others"]
    assert lines["plugin-bare-v0"] == []
    assert lines["particles-crowd-v0"]
    broken = {
        "plugin-missing-v0": "ModuleNotFoundError: No module named 'no_such_module'",
        "plugin-raises-v0": "ZeroDivisionError: division by zero",
        "plugin-exits-v0": "SystemExit: no license",
        "plugin-no-system-v0": "dataclass of 'plugin-no-system-v0' must be a class derived from",
        "plugin-fussy-v0": "TypeError: never satisfied",
        "Plugin_Bad": "id 'Plugin_Bad' must look like",
    }
    for id, reason in broken.items():
        assert lines[id][0].startswith(f"broken (zoo-worse 1.5): {reason}"), id
    assert [line.split()[0] for line in taken] == ["particles-crowd-v0", "plugin-good-v0"]
    listed: dict[str, Any] = json.loads("{" + found + "}")
    assert {one["id"] for one in listed["environments"]} >= {"plugin-good-v0", "plugin-bare-v0"}
    assert {one["id"] for one in listed["broken"]} == {*broken, *(t.split()[0] for t in taken)}
    assert {one["package"] for one in listed["broken"]} == {"zoo-worse 1.5"}
    assert codes.strip() == "[0, 0, 2, 2]"
    assert "plugin-raises-v0 of package zoo-worse 1.5 cannot be loaded: ZeroDivision" in run.stderr
    assert "'Plugin_Bad' of package zoo-worse 1.5: id 'Plugin_Bad' must look" in run.stderr


def test_variants_of_an_id_are_kept_and_checked() -> None:
    variants = [{"horizon": 3}, {"noise": 0.0}]
    invariantzoo.register(NEW, Hold, variants=variants)
    assert list(invariantzoo.spec(NEW).variants) == variants
    with pytest.raises(ValueError, match="unknown parameter 'noises' of test-registry-v0"):
        invariantzoo.register(NEW, Hold, variants=[{"noises": 0.0}], replace=True)
    with pytest.raises(ValueError, match="variants of 'test-registry-v0': 'noise' must be a dict"):
        invariantzoo.register(NEW, Hold, variants=("noise",), replace=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("id", invariantzoo.ids())
def test_every_variant_of_an_id_can_be_made(id: str) -> None:
    variants = invariantzoo.spec(id).variants
    for parameters in variants:
        invariantzoo.make_system(id, **parameters)
    assert {} not in variants


@pytest.mark.parametrize(
    "layout",
    [
        'SCENARIOS = {\n    "a-b-v0": {\n        "system": "A", "film": {"n": 2},\n    },\n}\n',
        'SCENARIOS = {"a-b-v0": {"system": "A", "film": {"n": 2}}}\nOTHER = {\n    "c": 1,\n}\n',
        'SCENARIOS   =  {\n  "a-b-v0": {"system": "A", "film": {"n": 2}}}',
    ],
)
def test_ids_are_read_from_a_file_however_it_is_laid_out(layout: str, tmp_path: Path) -> None:
    file = tmp_path / "system.py"
    file.write_text(f'"""A system."""\n\nimport nothing\n\n{layout}')
    assert registry._scenarios(file) == {"a-b-v0": {"system": "A", "film": {"n": 2}}}


def test_a_file_without_ids_has_none(tmp_path: Path) -> None:
    file = tmp_path / "system.py"
    file.write_text("HORIZON = 3\n# no SCENARIOS = {\n")
    assert registry._scenarios(file) == {}
