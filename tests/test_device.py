"""Systems on other devices: nothing is left on the CPU, and a GPU computes what the CPU does.

The device "meta" has shapes but no numbers, and is there without a GPU: what mixes it with the CPU
fails on a GPU too. What looks at numbers, as the forces of a model on disc do, cannot be tried so.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from cases import SEED, cases, random_action
from torch import Tensor

import invariantzoo
from invariantzoo.agents.policy import make_policy, policy_names
from invariantzoo.envs.core.observation import flatten
from invariantzoo.envs.core.rng import Rng
from invariantzoo.envs.core.system import System
from invariantzoo.envs.core.types import Symmetry
from invariantzoo.envs.ising.transport import IsingTransport
from invariantzoo.training.optim.config import METRICS
from invariantzoo.training.rl.algorithms import load_policy, make_config
from invariantzoo.training.rl.descent import Trainer

WORLDS, STEPS = 4, 4
CLOSE = 1e-9  # after all steps, relative to the largest number
UPDATES = 4
NO_TIES = {"particles-circle-v0": {"shift": 0.05}}  # or rounding decides who is nearer of two
FEW_ATTEMPTS = {"tasep-gates-v0": {"sweeps": 2}}  # 102 in a step, one by one, not 1,020
COSTLY = ("geodesic",)  # policies of which half a minute of numbers comes first
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
devices = pytest.mark.parametrize("device", ["meta", pytest.param("cuda", marks=gpu)])
DESCENDED = (
    "particles-crowd-v0",
    "particles-encounter-v0",
    "particles-goals-v0",
    "particles-circle-v0",
    "cluster-relaxation-v0",
    "quadratic-regimes-v0",
    "water-inference-v0",
    "water-dynamics-v0",
    "ising-transport-v0",
)


def moved(state: Any, device: str) -> Any:
    return type(state)(*(field.to(device) for field in state))


def without_numbers(compute: Callable[[], Any]) -> Any:
    """What `compute` gives; None if it needs numbers and there are none on "meta"."""
    try:
        return compute()
    except (NotImplementedError, RuntimeError) as error:
        if "no data" in str(error) or "meta tensors" in str(error):
            return None
        raise


def require_device(what: str, tensors: Iterable[Any], device: str) -> None:
    for tensor in tensors:
        if isinstance(tensor, Tensor):
            assert tensor.device.type == device, f"{what} is on {tensor.device}"


def test_random_numbers_are_where_their_worlds_are() -> None:
    rng = Rng.single(SEED, WORLDS, device="meta")
    for drawn in (rng.uniform(WORLDS, 3), rng.normal(WORLDS, 3)):
        assert (drawn.device.type, drawn.shape) == ("meta", (WORLDS, 3))


def places_for_words(seed: int, world: Tensor, clock: Tensor, draw: int, n: int) -> list[Tensor]:
    """In place of the ten rounds of Philox, each of whose operations is slow on "meta"."""
    return [torch.empty(len(world), (n + 1) // 2, dtype=torch.int64, device=world.device)] * 4


@devices
@pytest.mark.parametrize(("id", "parameters"), cases())
def test_all_that_a_system_computes_stays_where_its_state_is(
    id: str, parameters: dict[str, Any], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "meta":
        monkeypatch.setattr("invariantzoo.envs.core.rng._torch_words", places_for_words)
    system = invariantzoo.make_system(id, **{**FEW_ATTEMPTS.get(id, {}), **parameters})
    attempt = without_numbers if device == "meta" else lambda compute: compute()
    rng = Rng.single(SEED, WORLDS, device=device)
    drawn = attempt(lambda: system.initial(rng, WORLDS))
    require_device("initial", drawn or (), device)
    state = moved(system.initial(Rng.single(SEED, WORLDS), WORLDS), device)
    action = random_action(system, rng, WORLDS)
    after = attempt(lambda: system.transition(state, action, rng)) or state
    require_device("transition", after, device)
    seen = attempt(lambda: system.invariants(state)) or {}
    require_device("invariants", seen.values(), device)
    require_device("loss", [attempt(lambda: system.loss(state, action, after))], device)
    metrics = attempt(lambda: system.metrics(state, action, after)) or {}
    require_device("metrics", metrics.values(), device)
    for method in (system.active, system.terminated, system.action_mask):
        require_device(method.__name__, [attempt(lambda: method(state))], device)  # noqa: B023
    for symmetry in attempt(lambda: list(system.symmetries(state, rng))) or ():
        require_symmetry_on(symmetry, system, device)
    for name in policy_names(system):
        if seen and name not in COSTLY and not only_fused(name, system):
            policy, observation = make_policy(name, system), flatten(system, seen)
            chosen = attempt(lambda: policy(observation, rng))  # noqa: B023
            require_device(f"policy {name}", [chosen], device)


def only_fused(name: str, system: System) -> bool:
    """Whether a policy cannot be asked with observations."""
    fused_only = name in system.fused and name not in system.policies()
    return fused_only or name in system.state_policies()


def require_symmetry_on(symmetry: Symmetry, system: System, device: str) -> None:
    parts = (*symmetry.state, symmetry.agents, *symmetry.signs.values())
    require_device(symmetry.name, parts, device)


@gpu
@pytest.mark.parametrize(("id", "parameters"), cases())
def test_a_gpu_makes_the_same_steps(id: str, parameters: dict[str, Any]) -> None:
    compare_steps(invariantzoo.make_system(id, **{**NO_TIES.get(id, {}), **parameters}), "cuda")


def compare_steps(system: System, device: str) -> None:
    here = system.initial(Rng.single(SEED, WORLDS), WORLDS)
    there = system.initial(Rng.single(SEED, WORLDS, device=device), WORLDS)
    require_close("initial", here._asdict(), there._asdict())
    there = moved(here, device)
    actions, noise = Rng.single(SEED + 1, WORLDS), Rng.single(SEED + 2, WORLDS)
    noise_there = Rng.single(SEED + 2, WORLDS, device=device)
    for t in range(STEPS):
        action = random_action(system, actions, WORLDS)
        action_there = action.to(device)
        after = system.transition(here, action, noise)
        after_there = system.transition(there, action_there, noise_there)
        require_close(f"step {t}: state", after._asdict(), after_there._asdict())
        seen, seen_there = system.invariants(after), system.invariants(after_there)
        require_close(f"step {t}: invariants", seen, seen_there)
        loss = system.loss(here, action, after)
        loss_there = system.loss(there, action_there, after_there)
        require_close(f"step {t}", {"loss": loss}, {"loss": loss_there})
        metrics = system.metrics(here, action, after)
        metrics_there = system.metrics(there, action_there, after_there)
        require_close(f"step {t}: metrics", metrics, metrics_there)
        for method in ("active", "terminated", "action_mask"):
            flags, flags_there = (getattr(system, method)(x) for x in (after, after_there))
            if flags is not None:
                assert torch.equal(flags, flags_there.cpu()), f"step {t}: {method}"
        here, there = after, after_there


def require_close(what: str, expected: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    assert expected.keys() == values.keys()
    for name, tensor in expected.items():
        wanted, value = tensor.double(), values[name].cpu().double()
        scale = max(float(wanted.nan_to_num().abs().max()) if wanted.numel() else 0.0, 1e-3)
        torch.testing.assert_close(
            value,
            wanted,
            rtol=0,
            atol=CLOSE * scale,
            equal_nan=True,
            msg=lambda text: f"{what}: {name}: {text}",  # noqa: B023
        )


@devices
def test_actions_along_a_path_stay_where_it_is(device: str) -> None:
    path = IsingTransport(side=4).path
    actions = path.towards(torch.zeros(path.n_steps + 1, 2, dtype=torch.float64, device=device))
    require_device("towards", [actions], device)


def brief(id: str, **settings: Any) -> Any:
    given = {"n_worlds": 2, "rollout": 3, "width": 8, "float64": True}
    return make_config(id, "descent", {**given, **settings})


def losses(trainer: Trainer) -> np.ndarray:
    return np.array([update.loss for update in trainer])


@gpu
@pytest.mark.parametrize("id", DESCENDED)
def test_descent_on_a_gpu_goes_the_same_way(id: str) -> None:
    system = invariantzoo.make_system(id)
    here, there = (
        Trainer(system, brief(id, device=device), SEED, UPDATES) for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(losses(there), losses(here), rtol=1e-8)


@gpu
@pytest.mark.parametrize("metric", METRICS)
def test_descent_may_change_the_device_on_the_way(metric: str) -> None:
    id = "particles-encounter-v0"
    system = invariantzoo.make_system(id)
    settings = {"optimizer": "cgd", "metric": metric, "cgd_refresh": 3}
    whole = losses(Trainer(system, brief(id, **settings), SEED, 2 * UPDATES))
    for first, second in (("cpu", "cuda"), ("cuda", "cpu")):
        begun = Trainer(system, brief(id, device=first, **settings), SEED, 2 * UPDATES)
        part = [update.loss for update in itertools.islice(begun, UPDATES)]
        resumed = Trainer(system, brief(id, device=second, **settings), SEED, 2 * UPDATES)
        resumed.load_state_dict(begun.state_dict())
        assert resumed.update == UPDATES
        np.testing.assert_allclose(part, whole[:UPDATES], rtol=1e-8)
        np.testing.assert_allclose(losses(resumed), whole[UPDATES:], rtol=1e-8)


@pytest.mark.parametrize("name", ["cuda:99", "meta", "disc", ""])
def test_a_device_that_cannot_compute_is_refused(name: str) -> None:
    id = "particles-encounter-v0"
    with pytest.raises(ValueError, match=f"device='{name}' cannot compute here: .") as caught:
        Trainer(invariantzoo.make_system(id), brief(id, device=name), SEED, UPDATES)
    assert "\n" not in str(caught.value)


def test_the_policy_of_a_run_on_another_device_is_read_without_it() -> None:
    id = "particles-encounter-v0"
    system = invariantzoo.make_system(id)
    trainer = Trainer(system, brief(id), SEED, 1)
    policy = load_policy("descent", system, brief(id, device="cuda:99"), trainer.state_dict())
    state = system.initial(Rng.single(SEED, WORLDS), WORLDS)
    observation = flatten(system, system.invariants(state))
    expected = trainer.network(observation).clamp(-1, 1)
    assert torch.equal(policy(observation, None), expected)
