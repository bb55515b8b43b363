"""Names that users import: one list, imported when used; former places go on for one version."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from systems import Hold
from torch import Tensor

import invariantzoo
from invariantzoo.envs.core import renamed
from invariantzoo.envs.core.types import LiveParameter
from invariantzoo.envs.core.vector import VectorEnv

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]


def test_every_public_name_is_there() -> None:
    assert len(set(invariantzoo.__all__)) == len(invariantzoo.__all__)
    assert set(invariantzoo.__all__) <= set(dir(invariantzoo))
    for name in invariantzoo.__all__:
        assert getattr(invariantzoo, name).__doc__ or name in ("Range", "State"), name


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        invariantzoo.nonsense  # noqa: B018


def test_public_names_come_from_the_modules_themselves() -> None:
    code = """
import sys
import invariantzoo, invariantzoo.commands.train, invariantzoo.commands.evaluate
assert callable(invariantzoo.train) and callable(invariantzoo.evaluate)
from invariantzoo import CGD
from invariantzoo.training.optim import cgd
assert CGD is cgd.CGD
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_teach_the_public_names_alone(path: Path) -> None:
    lines = re.findall(r"^ *(?:from|import) invariantzoo\.\S+.*", path.read_text("utf-8"), re.M)
    assert lines == []


@pytest.mark.parametrize("former", renamed.MODULES)
def test_a_former_module_is_the_new_one(former: str) -> None:
    with pytest.warns(DeprecationWarning, match=re.escape(renamed.MODULES[former])):
        module = importlib.import_module(f"invariantzoo.{former}")
    new = importlib.import_module(f"invariantzoo.{renamed.MODULES[former]}")
    assert module is new
    assert new.__spec__ is not None
    assert new.__spec__.name == new.__name__ == f"invariantzoo.{renamed.MODULES[former]}"
    sys.modules.pop(f"invariantzoo.{former}")


@pytest.mark.parametrize("name", renamed.SYSTEM_NAMES)
def test_names_that_left_the_contract_are_still_found_there(name: str) -> None:
    from invariantzoo.envs.core import system

    with pytest.warns(DeprecationWarning, match=rf"system\.{name} is now .*\.{name}$"):
        value = getattr(system, name)
    assert value is getattr(
        importlib.import_module(f"invariantzoo.{renamed.SYSTEM_NAMES[name]}"), name
    )


@pytest.mark.parametrize("former", renamed.NAMES)
def test_a_former_name_is_the_new_one(former: str) -> None:
    module, _, name = former.rpartition(".")
    home, _, attribute = renamed.NAMES[former].rpartition(".")
    with pytest.warns(DeprecationWarning, match=re.escape(renamed.NAMES[former])) as warned:
        value = getattr(importlib.import_module(f"invariantzoo.{module}"), name)
    assert value is getattr(importlib.import_module(f"invariantzoo.{home}"), attribute)
    assert warned[0].filename == __file__


def test_a_former_name_of_nothing_is_refused() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("invariantzoo.envs.nothing")
    from invariantzoo.envs.core import system

    with pytest.raises(AttributeError, match="nothing"):
        system.nothing  # noqa: B018


def test_a_system_may_still_say_judge_knobs_and_gone() -> None:
    with pytest.warns(DeprecationWarning, match=r"Former\.\w+ is now") as warned:

        class Former(Hold):
            knobs: ClassVar[dict[str, LiveParameter]] = {"x": LiveParameter(0.5, -1, 1)}

            def judge(self, probabilities: Callable[[Tensor], Tensor]) -> dict[str, float]:
                return {**super().judge(probabilities), "kl": 1.0}

            def gone(self, state: Any) -> Tensor:
                return state.x > 1

    assert {str(warning.message).rpartition(".")[2] for warning in warned} == {
        "exact_evaluation",
        "live_parameters",
        "terminated",
    }
    assert {warning.filename for warning in warned} == {__file__}
    system = Former()
    with pytest.warns(DeprecationWarning, match=r"System\.exact_evaluation"):
        assert system.exact_evaluation(lambda observation: observation) == {"kl": 1.0}
    env = VectorEnv(system, 2, seed=0)
    env.reset()
    start = env.state.x.copy()
    env.adjust("x", 2)
    assert np.array_equal(env.state.x, np.clip(start + 1, -1, 1))
    assert env.may_leave


def test_what_a_system_is_asked_for_has_former_names() -> None:
    system = invariantzoo.make_system("ising-equilibrium-v0", lattice_size=3, temperature=2.0)

    def probabilities(observation: Tensor) -> Tensor:
        return torch.full((*observation.shape[:-1], 2), 0.5)

    with pytest.warns(DeprecationWarning, match=r"System\.judge is now System\.exact_evaluation"):
        former = system.judge(probabilities)
    assert former == system.exact_evaluation(probabilities) != {}
    with pytest.warns(DeprecationWarning, match=r"System\.live_parameters"):
        assert system.knobs == system.live_parameters
    env = VectorEnv(system, 1, seed=0)
    env.reset()
    with pytest.warns(DeprecationWarning, match=r"System\.gone is now System\.terminated"):
        assert system.gone(env.tensors) is None
    with pytest.warns(DeprecationWarning, match=r"VectorEnv\.adjust"):
        env.turn("temperature", 1)
    assert env.state.temperature[0, 0] == pytest.approx(2.05)
