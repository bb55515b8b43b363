"""Optimal control of a Dirac packet: the gauge field that leads it to its target.

The loss is that of `steer.py`, summed over the steps that are left: infidelity at the last of them
and effort. Its gradient by every field at every step is exact: the walk is undone step by step, and
with it goes the gradient by the field (gradient ascent pulse engineering, GRAPE; Khaneja et al.
2005). L-BFGS-B keeps actions in [-1, 1]. What it finds is a local optimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from .propagation import run_backward, run_forward
from .state import Problem, SteerState, target_overlap, translated
from .step import make_scratch

ITERATIONS = {"constant": 60, "uniform": 200, "grape": 200}
_GRID = 9  # constant fields that are tried first, along each axis


class World(NamedTuple):
    """One world's packet, links and target, as `SteerState` has them without the first axis."""

    u: np.ndarray
    d: np.ndarray
    link: np.ndarray
    target_u: np.ndarray
    target_d: np.ndarray
    centre: np.ndarray
    wave_number: np.ndarray
    time: np.ndarray


@dataclass(frozen=True)
class Steering:
    """The loss of what is left of an episode, as a function of all actions."""

    problem: Problem
    world: World

    @property
    def steps(self) -> int:
        """Steps that are left."""
        return max(self.problem.horizon - int(self.world.time[0]), 0)

    def loss(self, action: np.ndarray) -> tuple[float, np.ndarray]:
        """The loss of actions [steps, links], and its gradient."""
        problem, world = self.problem, self.world
        u, d, link = world.u.copy(), world.d.copy(), world.link.copy()
        rows, columns = problem.rows_and_columns
        scratch = make_scratch(len(link), rows, columns)
        run: dict[str, Any] = {
            "control": np.ascontiguousarray(problem.max_field * action),
            "c": np.cos(problem.angle),
            "s": np.sin(problem.angle),
            "shape": (rows, columns),
            "work": (scratch.phase, scratch.row, scratch.spare),
        }
        run_forward(u, d, link, *run.values())
        end = [torch.from_numpy(array.copy()[None]).requires_grad_() for array in (u, d, link)]
        fixed = (torch.from_numpy(array[None]) for array in world[3:6])
        with torch.enable_grad():  # who acts is asked without
            fidelity = target_overlap(problem.lattice, *end, *fixed)[0].abs() ** 2
            gradients = torch.autograd.grad(fidelity, end)
        at_u, at_d, at_link = (gradient[0].numpy() for gradient in gradients)
        slope = np.empty(action.shape)
        run_backward(u, d, link, *run.values(), at_u.copy(), at_d.copy(), slope)
        slope = slope[::-1].cumsum(0)[::-1] + at_link  # a field stays on its link
        effort = problem.effort / problem.horizon / action.shape[1]
        value = 1 - float(fidelity.detach()) + effort * float((action**2).sum())
        return value, 2 * effort * action - problem.max_field * slope


def plan(problem: Problem, state: SteerState, policy: str) -> np.ndarray:
    """Actions [worlds, horizon, links] of one of the policies from this state on, 0 before.

    Of "none" there are no steps. Worlds that differ by a translation alone are solved once.
    """
    if policy == "none":
        return np.zeros((len(state.u), 0, problem.links))
    moved, links = translated(
        problem.lattice, state, state.centre
    )  # the target stands at the origin
    solved: dict[bytes, np.ndarray] = {}
    actions = np.zeros((len(state.u), problem.horizon, problem.links))
    for w, planned in enumerate(actions):
        world = World(*(array.numpy()[w] for array in moved))
        key = b"".join(array.tobytes() for array in world)
        if key not in solved:
            solved[key] = optimised(Steering(problem, world), policy)
        planned[problem.horizon - len(solved[key]) :, links[w].numpy()] = solved[key]
    return actions


def optimised(steering: Steering, policy: str) -> np.ndarray:
    """Actions [steps, links] that lower the loss: of the links' own, or alike on an axis.

    policy: "constant" (one field), "uniform" (a field per step) or "grape" (all).
    """
    start, steps = _best_constant(steering), steering.steps
    if steps == 0:
        return np.zeros((0, steering.problem.links))
    for name in ("constant", "uniform", "grape"):
        start = _descended(steering, start, name)
        if name == policy:
            break
    return start


def _best_constant(steering: Steering) -> np.ndarray:
    """The best of a grid of constant fields [steps, links]."""
    problem = steering.problem
    levels = np.linspace(-1, 1, _GRID)
    grid = np.stack(np.meshgrid(*[levels] * problem.lattice.dimension, indexing="ij"), -1)
    on_links = np.repeat(grid.reshape(-1, problem.lattice.dimension), problem.lattice.n_sites, 1)
    tried = [np.repeat(field[None], steering.steps, 0) for field in on_links]
    return min(tried, key=lambda action: steering.loss(action)[0])


def _descended(steering: Steering, start: np.ndarray, policy: str) -> np.ndarray:
    """Where L-BFGS-B leads from actions [steps, links] among those of a policy."""
    from scipy.optimize import minimize

    problem, shape = steering.problem, start.shape
    by_axis = (len(start), problem.lattice.dimension, problem.lattice.n_sites)
    shared = {"constant": (0, 2), "uniform": (2,), "grape": ()}[policy]  # axes of `by_axis`

    def spread(x: np.ndarray) -> np.ndarray:
        few = [1 if axis in shared else n for axis, n in enumerate(by_axis)]
        return np.broadcast_to(x.reshape(few), by_axis).reshape(shape)

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = steering.loss(spread(x))
        return value, gradient.reshape(by_axis).sum(shared).ravel()

    first = start.reshape(by_axis).mean(shared).ravel()
    result = minimize(
        loss,
        first,
        jac=True,
        method="L-BFGS-B",
        bounds=[(-1.0, 1.0)] * first.size,
        options={"maxiter": ITERATIONS[policy], "ftol": 1e-9, "gtol": 1e-7},
    )
    return spread(result.x)
