"""A step that torch can differentiate, at the price of the compiled one.

`differentiable_step` is transition and invariants in one. Its gradient is compiled too: the walk
is undone for what a number depends on, and the observations are differentiated by hand; a test
holds both equal to those of the torch form. In one dimension.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..core.kernels.compiling import compiled, compiled_part
from .propagation import raise_links, slopes, undo_walk, walk
from .state import SteerState
from .step import SteerArrays, make_scratch, observe_world

if TYPE_CHECKING:
    from .steer import DiracSteer

_compile = compiled(error_model="numpy")
_part = compiled_part(error_model="numpy")


def differentiable_step(
    system: DiracSteer, state: SteerState, action: Tensor
) -> tuple[SteerState, Tensor]:
    """The next state and the observations in it [worlds, links, size], all float64.

    action [worlds, links, 1]. Raises ValueError in two dimensions.
    """
    if system.dimensions != 1:
        raise ValueError(f"dimensions={system.dimensions} must be 1")
    parameters = system.parameter_record()
    fixed = state._replace(time=state.time + 1)
    u, d, link, seen = _Step.apply(parameters, fixed, state.u, state.d, state.link, action)
    return fixed._replace(u=u, d=d, link=link), seen


class _Step(torch.autograd.Function):
    """(u, d, link, action) -> (u, d, link, observations); `state` brings what no step changes."""

    @staticmethod
    def forward(
        ctx: Any, parameters: Any, state: Any, u: Tensor, d: Tensor, link: Tensor, action: Tensor
    ) -> tuple[Tensor, ...]:
        after = state._replace(u=u.clone(), d=d.clone(), link=link.clone())
        seen = u.new_empty(*link.shape, 12)
        arrays = SteerArrays(*(part.detach().numpy() for part in after))
        memory = make_scratch(link.shape[1], 1, link.shape[1])
        _forward(arrays, parameters, action.detach().double().numpy(), memory, seen.numpy())
        ctx.parameters, ctx.state, ctx.memory = parameters, after, memory
        return after.u, after.d, after.link, seen

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        arrays = SteerArrays(*(part.detach().numpy() for part in ctx.state))
        at_u, at_d, at_link, at_seen = (
            g.clone(memory_format=torch.contiguous_format) for g in gradients
        )
        numbers = (gradient.numpy() for gradient in (at_u, at_d, at_link, at_seen))
        _backward(arrays, ctx.parameters, ctx.memory, *numbers)
        return None, None, at_u, at_d, at_link, ctx.parameters["field"][0] * at_link.unsqueeze(-1)


@_compile
def _forward(state: Any, parameters: Any, action: Any, memory: Any, seen: Any) -> None:
    p = parameters[0]
    for w in range(len(action)):
        u, d = state.u[w], state.d[w]
        for i in range(action.shape[1]):
            memory.control[i] = p.field * action[w, i, 0]
        raise_links(state.link[w], memory.phase, memory.control)
        walk(
            u,
            d,
            memory.phase,
            p.cosine,
            p.sine,
            (p.rows, p.columns),
            memory.row,
            memory.spare[0],
            memory.spare[1],
        )
        for x in range(len(u)):
            for part in range(2):
                u[x, part], d[x, part] = memory.spare[0, x, part], memory.spare[1, x, part]
        observe_world(state, w, p, seen[w])


@_compile
def _backward(
    state: Any, parameters: Any, memory: Any, at_u: Any, at_d: Any, at_link: Any, at_seen: Any
) -> None:
    """Gradients after the step become those before it, in place."""
    p = parameters[0]
    shape = (p.rows, p.columns)
    for w in range(len(at_u)):
        u, d, link = state.u[w], state.d[w], state.link[w]
        _observation_gradient(
            u,
            d,
            link,
            state.wave_number[w, 0],
            state.time[w, 0],
            p,
            at_seen[w],
            at_u[w],
            at_d[w],
            at_link[w],
        )
        for i in range(len(link)):
            memory.control[i] = 0.0
        raise_links(link, memory.phase, memory.control)
        slopes(u, d, at_u[w], at_d[w], 0, shape, 1, at_link[w])
        undo_walk(at_u[w], at_d[w], memory.phase, p.cosine, p.sine, shape, memory.spare)


@_part
def _observation_gradient(
    u: Any,
    d: Any,
    link: Any,
    wave_number: float,
    time: int,
    p: Any,
    at: Any,
    at_u: Any,
    at_d: Any,
    at_link: Any,
) -> None:
    """Add to at_u, at_d, at_link what a number with gradient `at` [links, size] gains by them.

    Letters are those of `step.py`: u, d at one end of a link, v, e at the other; complex numbers
    stand for their two parts, and the gradient by z is that by its parts.
    """
    to_go = max(p.horizon - time, 1)
    for x in range(len(u)):
        z = x + 1 if x < len(u) - 1 else 0
        a_u, a_d = complex(u[x, 0], u[x, 1]), complex(d[x, 0], d[x, 1])
        a_v, a_e = complex(u[z, 0], u[z, 1]), complex(d[z, 0], d[z, 1])
        here_u, here_d = abs(a_u) ** 2, abs(a_d) ** 2
        there_u, there_d = abs(a_v) ** 2, abs(a_e) ** 2
        density = 0.5 * (here_u + here_d + there_u + there_d)
        per = 1.0 / (density + p.faint)
        phase = np.exp(-1j * (link[x] + wave_number))
        hop = (np.conj(a_u) * a_v + np.conj(a_d) * a_e) * phase
        coin = np.conj(a_u) * a_d + np.conj(a_v) * a_e
        rise = 0.5 * (there_u + there_d - here_u - here_d)
        flow = 0.5 * (here_u - here_d + there_u - there_d)
        at_mismatch = at[x, 4]
        if abs(hop.imag * per) < p.urgent * to_go * p.field:
            at_mismatch += at[x, 10] / (to_go * p.field)
        by_rise, by_flow = at[x, 1] * per, at[x, 2] * per
        by_hop = complex(at[x, 3], at_mismatch) * per
        by_coin = complex(at[x, 5], at[x, 6]) * per
        shared = by_rise * rise + by_flow * flow
        shared += by_hop.real * hop.real + by_hop.imag * hop.imag
        shared += by_coin.real * coin.real + by_coin.imag * coin.imag
        by_density = -per * shared
        if p.scale * density < p.densest:
            by_density += p.scale * at[x, 0]
        to_u = (by_density - by_rise + by_flow) * a_u
        to_d = (by_density - by_rise - by_flow) * a_d
        to_v = (by_density + by_rise + by_flow) * a_v
        to_e = (by_density + by_rise - by_flow) * a_e
        back = np.conj(by_hop) * phase
        on = np.conj(back)
        to_u += back * a_v + np.conj(by_coin) * a_d
        to_d += back * a_e + by_coin * a_u
        to_v += on * a_u + np.conj(by_coin) * a_e
        to_e += on * a_d + by_coin * a_v
        at_link[x] += by_hop.real * hop.imag - by_hop.imag * hop.real
        at_u[x, 0] += to_u.real
        at_u[x, 1] += to_u.imag
        at_d[x, 0] += to_d.real
        at_d[x, 1] += to_d.imag
        at_u[z, 0] += to_v.real
        at_u[z, 1] += to_v.imag
        at_d[z, 0] += to_e.real
        at_d[z, 1] += to_e.imag
