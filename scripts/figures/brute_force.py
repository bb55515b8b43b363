"""Invariants against brute force: what the agents see and in which frame they act.

    python -m invariantzoo.figures.brute_force [--out docs] [--seeds 5]

PPO with the same network and budget on the crowd: invariants seen and covariant actions, invariants
seen and laboratory actions, raw positions and velocities seen and laboratory actions. Every trained
policy is then tested in worlds that are boosted, turned or relabelled. Writes brute-force.md, its
picture and brute-force.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

import invariantzoo
from invariantzoo.envs.core.types import Bound
from invariantzoo.envs.particles.crowd import Crowd
from invariantzoo.envs.particles.discs import State
from invariantzoo.envs.particles.sight import Pairs, Sight
from invariantzoo.report import (
    figure_parser,
    page_figure,
    page_legend,
    recorded,
    save_figure,
    table,
    write_text,
)

ID = "particles-crowd-v0"
VIEWS: dict[str, tuple[str, dict[str, Any]]] = {  # name -> id, parameters
    "invariants, covariant heading": (ID, {"actions": "heading"}),
    "invariants, covariant pairs": (ID, {"actions": "pair"}),
    "invariants, laboratory": ("crowd-laboratory-v0", {}),
    "raw, laboratory": ("crowd-raw-v0", {}),
}
TESTS = ("as trained", "boosted", "turned", "relabelled")
STEPS, EVERY, WORLDS = 1_536_000, 153_600, 32
PPO: dict[str, Any] = {
    "n_steps": 50,
    "batch_size": 4800,
    "n_epochs": 4,
    "gamma": 0.95,
    "learning_rate": 1e-3,
    "max_grad_norm": 0.5,
}


@dataclass(frozen=True)
class LaboratoryControl:
    """x and y of the laboratory, in units of the largest acceleration: not covariant."""

    max_acceleration: float
    covariant: ClassVar[bool] = False

    def size(self, sight: Sight) -> int:
        return 2

    def bounds(self, sight: Sight) -> tuple[dict[str, Bound], dict[str, Bound]]:
        return {}, {}

    def invariants(self, sight: Sight, pairs: Pairs, p: Tensor) -> dict[str, Tensor]:
        return {}

    def acceleration(self, sight: Sight, pairs: Pairs, p: Tensor, action: Tensor) -> Tensor:
        return self.max_acceleration * action

    def parity(self, sight: Sight) -> list[float]:
        return [1.0, 1.0]


@dataclass(frozen=True)
class LaboratoryCrowd(Crowd):
    """The crowd with actions in the laboratory."""

    @property
    def baselines(self) -> tuple[str, ...]:
        return ()

    @property
    def control(self) -> LaboratoryControl:
        return LaboratoryControl(self.max_acceleration)

    @property
    def neighbourhood(self) -> None:
        return None


@dataclass(frozen=True)
class RawCrowd(LaboratoryCrowd):
    """The same, seeing positions and velocities in the laboratory."""

    @property
    def bounds(self) -> dict[str, Bound]:
        far = 2 * self.half_width + self.speed_limit
        return {"own": Bound(-far, far, 6), "others": Bound(-far, far, 4 * self.k)}

    def invariants(self, state: State) -> dict[str, Tensor]:
        pairs = self.pairs(state)
        worlds = torch.arange(len(pairs.neighbour))[:, None, None]
        everything = torch.cat([state.position, state.velocity], -1)
        others = everything[worlds, pairs.neighbour].where(pairs.present.unsqueeze(-1), 0.0)
        return {"own": torch.cat([everything, state.desired], -1), "others": others.flatten(2)}


def run(id: str, parameters: dict[str, Any], seed: int) -> dict[str, Any]:
    """Learning curve and mean loss in every test of one trained policy."""
    from stable_baselines3 import PPO as Ppo

    from invariantzoo.envs.core.interfaces.stable_baselines3 import make_vec_env
    from invariantzoo.training.rl.policies import Scaled

    env = make_vec_env(id, n_worlds=WORLDS, seed=seed, **parameters)
    architecture = {
        "features_extractor_class": Scaled,
        "net_arch": [64, 64],
        "log_std_init": -1.0,
    }
    model = Ppo("MlpPolicy", env, policy_kwargs=architecture, seed=seed, device="cpu", **PPO)
    curve = [(0, tested(model, id, parameters, "as trained", worlds=8))]
    while model.num_timesteps < STEPS:
        model.learn(EVERY, reset_num_timesteps=False)
        curve.append((model.num_timesteps, tested(model, id, parameters, "as trained", worlds=8)))
    return {
        "curve": curve,
        "tests": {name: tested(model, id, parameters, name, worlds=64) for name in TESTS},
    }


def tested(model: Any, id: str, parameters: dict[str, Any], name: str, worlds: int) -> float:
    """Mean loss per agent and step over an episode of the same worlds seen by another observer."""
    from invariantzoo import make_system
    from invariantzoo.envs.core.vector import VectorEnv
    from invariantzoo.training.rl.score import HELD_OUT

    system = make_system(id, **parameters)
    env = VectorEnv(system, worlds, seed=HELD_OUT, autoreset=False)
    env.reset()
    observation = env.restore(transformed(env.save(), name))
    total = 0.0
    for _ in range(system.horizon):
        rows = observation.reshape(worlds * system.n_agents, -1)
        action, _ = model.predict(rows, deterministic=True)
        step = env.step(action.reshape(worlds, system.n_agents, -1))
        total -= float(step.reward.mean())
        observation = step.observation
    return total / system.horizon


def transformed(saved: dict[str, Any], name: str) -> dict[str, Any]:
    """The saved worlds as another observer sees them: each world by its own random change."""
    rng = np.random.default_rng(1)
    position, velocity, desired = (saved[f"state.{n}"] for n in ("position", "velocity", "desired"))
    worlds, n, _ = position.shape
    if name == "boosted":
        angle = rng.uniform(0, 2 * np.pi, (worlds, 1))
        boost = 2 * np.stack([np.cos(angle), np.sin(angle)], -1)
        return {**saved, "state.velocity": velocity + boost, "state.desired": desired + boost}
    if name == "turned":
        turn = np.array([[0.0, -1.0], [1.0, 0.0]]).T
        side = saved["state.box"][:, :, None]
        return {
            **saved,
            "state.position": (position @ turn) % side,
            "state.velocity": velocity @ turn,
            "state.desired": desired @ turn,
        }
    if name == "relabelled":
        order = np.argsort(rng.uniform(size=(worlds, n)), -1)[..., None]
        return {
            **saved,
            **{
                f"state.{key}": np.take_along_axis(saved[f"state.{key}"], order, 1)
                for key in ("position", "velocity", "desired")
            },
        }
    return saved


def main() -> None:
    """Compute what is missing, then print and write the page."""
    invariantzoo.register("crowd-laboratory-v0", LaboratoryCrowd, replace=True)
    invariantzoo.register("crowd-raw-v0", RawCrowd, replace=True)
    args = figure_parser(__doc__, out=Path("docs"), seeds=5).parse_args()
    torch.set_num_threads(1)
    store = args.out / "results" / "brute-force.json"
    straight = recorded(store, "straight", _straight)
    runs = {
        name: [
            recorded(store, f"{name}, seed {seed}", partial(run, id, parameters, seed))
            for seed in range(args.seeds)
        ]
        for name, (id, parameters) in VIEWS.items()
    }
    page = _page(straight, runs)
    print(page)
    write_text(args.out / "brute-force.md", page)
    save_figure(_figure(straight, runs), args.out / "images" / "brute-force.png")


def _straight() -> float:
    from invariantzoo import make_system
    from invariantzoo.agents.policy import make_policy
    from invariantzoo.training.rl.score import evaluate

    system = make_system(ID)
    policy = make_policy("straight", system)
    scores = evaluate(system, policy, episodes=64, seeds=1, deterministic=True)
    return float(scores["loss"].mean())


def _page(straight: float, runs: dict[str, list[dict[str, Any]]]) -> str:
    rows = [
        [f"{name}, seed {seed}", *(scores["tests"][test] for test in TESTS)]
        for name, scores_by_seed in runs.items()
        for seed, scores in enumerate(scores_by_seed)
    ]
    return f"""# Invariants with covariant actions learn the crowd, raw coordinates do not

PPO on `particles-crowd-v0` with the same settings, the same network (two hidden layers of 64) and
the same budget of {STEPS:,} agent-steps. What differs is what an agent sees (pair invariants, or
the raw positions and velocities of the same eight neighbours) and the frame in which it acts (along
and across a covariant heading, coefficients of the pair vectors, or x and y of the laboratory).
Numbers are the mean loss per agent and step; driving straight costs {straight:.3f}.

{table(["seen and acted", *TESTS], rows)}
![loss against samples, and in the tests](images/brute-force.png)

The tests show the same 64 worlds to another observer: moving with speed 2 in a random direction,
turned by 90 degrees (a torus has no other rotations), or with the agents renumbered. A policy of
invariants with covariant actions cannot tell the difference; what is left is rounding.

To reproduce: `python -m invariantzoo.figures.brute_force`.
"""


def _figure(straight: float, runs: dict[str, list[dict[str, Any]]]) -> Any:
    from matplotlib.ticker import NullFormatter

    figure, panels = page_figure(1, 2, 3.9)
    left, right = panels[0]
    for number, (name, seed_runs) in enumerate(runs.items()):
        for run in seed_runs:
            steps, losses = zip(*run["curve"], strict=True)
            left.plot(np.array(steps) / 1e6, losses, c=f"C{number}", lw=1, alpha=0.7)
        left.plot([], [], c=f"C{number}", label=name)
        for column, test_name in enumerate(TESTS):
            values = [run["tests"][test_name] for run in seed_runs]
            x = [column + 0.15 * (number - 1.5)] * len(values)
            right.plot(x, values, "o", c=f"C{number}", ms=4, alpha=0.7)
    for axes in (left, right):
        axes.axhline(straight, c="grey", ls=":", lw=1)
        axes.set(ylabel="loss per agent and step", yscale="log")
        axes.set_yticks([0.3, 0.5, 1.0, 2.0], ["0.3", "0.5", "1", "2"])
        axes.yaxis.set_minor_formatter(NullFormatter())
    left.plot([], [], c="grey", ls=":", lw=1, label="straight ahead")
    left.set_xlabel("million agent-steps")
    right.set_xticks(range(len(TESTS)), TESTS)
    page_legend(figure, 3)
    return figure


if __name__ == "__main__":
    main()
