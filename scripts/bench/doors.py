"""What `bench` measures of doors: each beside the bare batch that it stands on."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import invariantzoo
from invariantzoo.bench import interfaces
from invariantzoo.bench.interfaces import CROWD
from invariantzoo.bench.measure import Case, Work, is_installed

N = 10  # agents of a world
NOTES = {
    "doors": "Worlds of 10 agents; the peer is `VectorEnv` itself with as many worlds, so that the "
    "ratio is what a door leaves of its speed. Where arrays go through whole (Gymnasium, TorchRL, "
    "torch tensors) a door costs so much a step, whatever the number of agents; where each agent "
    "has entries of its own it costs so much an agent: PettingZoo makes five dictionaries with an "
    "entry of every agent, AEC is called once for every agent, Stable-Baselines3 wants a "
    "dictionary of every slot and adds up its returns. TorchRL makes and checks a TensorDict in "
    "every step, keeps the one before and looks for worlds to reset. TorchRL's own wrapper of the "
    "PettingZoo door makes tensors agent by agent, of one world. JAX hands arrays to a callback "
    "and back, out of compiled code, and copies them.",
}


def cases() -> Iterator[Case]:
    """Every door beside the bare batch, and TorchRL's two beside each other."""
    doors: list[tuple[str, int, Callable[[], Work]]] = [
        ("PettingZoo parallel", 1, functools.partial(interfaces.parallel, N)),
        ("PettingZoo AEC", 1, functools.partial(interfaces.aec, N)),
        ("Gymnasium make_vec", 64, functools.partial(interfaces.gym_vector, 64, N)),
        ("Stable-Baselines3 vec_env", 64, functools.partial(interfaces.vec_env, 64, N)),
        ("torch tensors", 64, functools.partial(tensors, 64)),
        ("torch form", 64, functools.partial(bare, 64, kernel=False)),
    ]
    if is_installed("torchrl"):
        doors += [("TorchRL", n, functools.partial(torchrl, n)) for n in (1, 16, 64, 256)]
    if is_installed("jax"):
        doors.append(("JAX io_callback", 64, functools.partial(jax_callback, 64)))
    for door, worlds, ours in doors:
        peer = f"VectorEnv, {_worlds(worlds)}"
        yield Case(f"doors: {door}, {_worlds(worlds)}", ours, peer, functools.partial(bare, worlds))
    if is_installed("torchrl"):
        for worlds in (1, 16, 64, 256):
            yield Case(
                f"doors: TorchRL, {_worlds(worlds)}",
                functools.partial(torchrl, worlds),
                "TorchRL's PettingZoo wrapper",
                torchrl_wrapper,
                at_least=60 if worlds == 16 else None,
            )


def _worlds(count: int) -> str:
    return f"{count} world{'' if count == 1 else 's'}"


def bare(worlds: int, *, kernel: bool = True) -> Work:
    """The batch that all doors stand on."""
    return interfaces.batched(CROWD, worlds, kernel=kernel, n_agents=N)


def tensors(worlds: int) -> Work:
    """The batch, with actions and results as torch tensors."""
    import torch

    env = invariantzoo.VectorEnv(invariantzoo.make_system(CROWD, n_agents=N), worlds, seed=0)
    env.reset()
    shape = (worlds, N, *(env.system.action_space.shape or ()))
    action = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32))

    def work() -> int:
        step = env.step(action.numpy())
        for array in (step.observation, step.reward, step.terminated, step.truncated, step.done):
            torch.from_numpy(array)
        return worlds * N

    return work


def jax_callback(worlds: int) -> Work:
    """The batch behind JAX's `io_callback`, 16 steps to a compiled rollout."""
    import jax
    import jax.numpy as jnp
    from jax.experimental import io_callback

    env = invariantzoo.VectorEnv(invariantzoo.make_system(CROWD, n_agents=N), worlds, seed=0)
    first = env.reset()
    shapes = (
        jax.ShapeDtypeStruct(first.shape, jnp.float32),
        jax.ShapeDtypeStruct(first.shape[:2], jnp.float32),
        jax.ShapeDtypeStruct(first.shape[:1], jnp.bool_),
    )
    shape = (16, worlds, N, *(env.system.action_space.shape or ()))
    actions = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32))

    def of_worlds(action: Any) -> tuple[np.ndarray, ...]:
        step = env.step(np.array(action))
        return step.observation, step.reward.astype(np.float32), step.done

    def rollout(actions: Any) -> Any:
        def body(carry: None, action: Any) -> Any:
            return carry, io_callback(of_worlds, shapes, action, ordered=True)

        return jax.lax.scan(body, None, actions)[1]

    compiled = jax.jit(rollout)

    def work() -> int:
        jax.block_until_ready(compiled(actions))
        return len(actions) * worlds * N

    return work


def torchrl(worlds: int) -> Work:
    """Our TorchRL environment."""
    return _torchrl_steps(invariantzoo.torchrl_env(CROWD, n_worlds=worlds, seed=0, n_agents=N))


def torchrl_wrapper() -> Work:
    """TorchRL's wrapper of our PettingZoo environment."""
    from torchrl.envs import PettingZooWrapper

    return _torchrl_steps(PettingZooWrapper(invariantzoo.parallel_env(CROWD, n_agents=N)))


def _torchrl_steps(env: Any) -> Work:
    """Steps and resets as TorchRL's collectors make them, under random actions."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TorchRL's own
        now = env.reset()
    ((key, spec),) = env.full_action_spec.items(True, True)
    numbers = np.random.default_rng(0).uniform(-1, 1, (16, *spec.shape)).astype(np.float32)
    actions = list(torch.from_numpy(numbers))

    def work() -> int:
        nonlocal now
        for action in actions:
            now.set(key, action.clone())
            _, now = env.step_and_maybe_reset(now)
        return len(actions) * int(np.prod(actions[0].shape[:-1]))

    return work
