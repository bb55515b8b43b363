"""What `bench` measures of learning: PPO beside SuperSuit's, optimizers beside torch's."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import invariantzoo
from invariantzoo.bench.interfaces import CROWD
from invariantzoo.bench.measure import Case, Work


def ppo_cases() -> Iterator[Case]:
    """PPO's rollouts and gradient steps."""
    yield Case(
        "SB3 PPO learn(), crowd of 10, our settings, plain network",
        functools.partial(learn, "mlp"),
        "SuperSuit + MPE2, the same settings",
        supersuit_learn,
        ("supersuit", "mpe2"),
        40,
        slow=True,
    )
    yield Case(
        "SB3 PPO learn(), crowd of 10, SB3's defaults",
        learn_plainly,
        "SuperSuit + MPE2, SB3's defaults",
        supersuit_learn_plainly,
        ("supersuit", "mpe2"),
        slow=True,
    )
    yield Case(
        "SB3 PPO learn(), crowd of 10, our settings, pair network",
        functools.partial(learn, "pair"),
        floor=6e4,
        slow=True,
    )
    yield Case(
        "SB3 PPO learn(), crowd of 10, our settings, a rollout judged by CriticalityCallback",
        functools.partial(learn_watched, True),
        "one that is not; 0.5x is 5 % of a run at the default interval of 20",
        functools.partial(learn_watched, False),
        at_least=0.5,
        slow=True,
        turns=11,
    )


def optimizer_cases() -> Iterator[Case]:
    """CGD beside Adam, and dense metrics beside the backward pass that they follow."""
    for n in (10_000, 100_000, 1_000_000):
        for name, settings in (("CGD", {}), ("CGD without its kernel", {"fused": False})):
            yield Case(
                f"{name}, {n:,} parameters",
                functools.partial(descend, n, **settings),
                "torch Adam(foreach=True)",
                functools.partial(adam, n, foreach=True),
                at_least=1.0,
                unit="steps/s",
            )
        yield Case(
            f"CGD, {n:,} parameters",
            functools.partial(descend, n),
            "torch Adam(fused=True)",
            functools.partial(adam, n, fused=True),
            unit="steps/s",
        )
    yield Case(
        "CGD that looks for NaN, 100,000 parameters",
        functools.partial(descend, 100_000, check_finite=True),
        "torch Adam(foreach=True)",
        functools.partial(adam, 100_000, foreach=True),
        unit="steps/s",
    )
    metrics: list[dict[str, Any]] = [
        {"metric": "block"},
        {"metric": "block", "refresh": 10},
        {"metric": "block", "blocks": "row", "refresh": 10},
        {"metric": "full", "refresh": 10},
        {"metric": "lowrank", "rank": 20},
    ]
    for n in (256, 1000):
        for settings in metrics:
            words = ", ".join(str(value) for value in settings.values())
            yield Case(
                f"CGD {words}, {n:,} parameters",
                functools.partial(descend, n, **settings),
                "forward and backward of 256 rows",
                functools.partial(backward, n),
                unit="steps/s",
                slow=n > 256,
            )


def learn(network: str) -> Work:
    """PPO as `train` runs it, for updates that go through the end of an episode."""
    from invariantzoo.training.rl.sb3 import PPOConfig, Trainer

    system = invariantzoo.make_system(CROWD, n_agents=10)
    trainer = Trainer(system, PPOConfig(network=network), seed=0, steps=10**12)
    updates = iter(trainer)
    needed = math.ceil(system.horizon / trainer.config.n_steps)

    def work() -> int:
        before = trainer.steps
        for _ in range(needed):
            next(updates)
        return trainer.steps - before

    return work


def learn_watched(criticality: bool) -> Work:
    """A rollout of PPO with our settings and its gradient steps.

    criticality: whether its gradients are judged. Of a run that is judged at intervals the cost is
    less than what a loaded machine adds to a turn; of one rollout it is not.
    """
    from invariantzoo import CriticalityCallback
    from invariantzoo.training.rl.sb3 import PPOConfig, Trainer

    system = invariantzoo.make_system(CROWD, n_agents=10)
    trainer = Trainer(system, PPOConfig(network="mlp"), seed=0, steps=10**12)
    rows = trainer.per_update

    def work() -> int:
        trainer.model.learn(rows, callback=CriticalityCallback(every=1) if criticality else None)
        return rows

    return work


def supersuit_learn() -> Work:
    """PPO with the settings and the size of network of `learn`, on MPE2 through SuperSuit."""
    from invariantzoo.training.rl.sb3 import PPOConfig

    ours = PPOConfig()
    settings = {
        "n_steps": ours.n_steps,
        "batch_size": ours.batch_size,
        "n_epochs": ours.n_epochs,
        "learning_rate": ours.lr,
        "gamma": ours.gamma,
        "gae_lambda": ours.gae_lambda,
        "policy_kwargs": {"net_arch": [ours.width, ours.width]},
    }
    return _learning(_supersuit(ours.n_worlds), settings)


def learn_plainly() -> Work:
    """SB3's PPO with its defaults on our VecEnv of one world."""
    return _learning(invariantzoo.vec_env(CROWD, seed=0, n_agents=10), {})


def supersuit_learn_plainly() -> Work:
    """SB3's PPO with its defaults on one world of MPE2 through SuperSuit."""
    return _learning(_supersuit(1), {})


def _supersuit(worlds: int) -> Any:
    import supersuit
    from mpe2 import simple_spread_v3

    env = simple_spread_v3.parallel_env(N=10, continuous_actions=True, max_cycles=200)
    slots = supersuit.pettingzoo_env_to_vec_env_v1(env)
    return supersuit.concat_vec_envs_v1(slots, worlds, base_class="stable_baselines3")


def _learning(env: Any, settings: dict[str, Any]) -> Work:
    """One rollout and its gradient steps at a time."""
    from stable_baselines3 import PPO

    model = PPO("MlpPolicy", env, device="cpu", **settings)
    steps = model.n_steps * env.num_envs

    def work() -> int:
        model.learn(steps)
        return steps

    return work


def descend(n: int, **settings: Any) -> Work:
    """Steps of our optimizer on a network of about n parameters, with gradients as they are.

    A basis is kept for a tenth of the steps so far: what is timed comes after so many steps that
    it is kept for all of `refresh`.
    """
    from invariantzoo.training.optim.cgd import CGD

    work = _optimizing(n, lambda params: CGD(params, **settings))
    for _ in range(10 * settings["refresh"] if "refresh" in settings else 0):
        work()
    return work


def adam(n: int, **settings: Any) -> Work:
    """Steps of torch's Adam."""
    import torch

    return _optimizing(n, lambda params: torch.optim.Adam(params, **settings))


def _optimizing(n: int, make: Callable[[Any], Any]) -> Work:
    net, batch = network(n)
    net(batch).square().mean().backward()
    optimizer = make(net.parameters())

    def work() -> int:
        optimizer.step()
        return 1

    return work


def backward(n: int) -> Work:
    """Forward and backward passes of a network of about n parameters."""
    net, batch = network(n)

    def work() -> int:
        for p in net.parameters():
            p.grad = None
        net(batch).square().mean().backward()
        return 1

    return work


def network(n: int) -> Any:
    """Two hidden layers with n parameters or a little less, and 256 rows for it."""
    import torch

    from invariantzoo.agents.networks.choose import initialise

    width = int((math.sqrt(11**2 + 4 * (n - 1)) - 11) / 2)  # 8 w + w + w^2 + w + w + 1
    generator = torch.Generator().manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(8, width),
        torch.nn.Tanh(),
        torch.nn.Linear(width, width),
        torch.nn.Tanh(),
        torch.nn.Linear(width, 1),
    )
    initialise(net, 0)
    return net, torch.randn(256, 8, generator=generator)
