"""The network of the learned driver of discs with goals, for all ways to train.

Its form, and the compiled code that runs many sets of weights at once, are those of
`agents/baselines/learned.py`; here it is differentiable. It asks for a velocity, or for the
acceleration that brings it nearest in a step where the system wants one; the coefficients of
neighbours in the action are 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...envs.core.observation import by_name
from ...envs.particles.goal_geometry import shortened
from ..baselines.goal_driving import GoalSystem, action_of_velocity, rows
from ..baselines.learned import (
    OWN_HIDDEN,
    OWN_INPUTS,
    OWN_OUTPUTS,
    PAIR_HIDDEN,
    PAIR_INPUTS,
    PAIR_OUTPUTS,
    POOLED,
    REACH,
    SOFT,
    Learned,
)

_LOUDNESS = 0.1  # standard deviation of weights at the start


class DriverNetwork(nn.Module):
    """From the invariants of discs with goals to the action that asks for the velocity wanted.

    Parameters are in the order of `Learned.weights`, a row for each input. `width` is not used:
    the sizes are fixed.
    """

    def __init__(self, system: Any, width: int) -> None:
        super().__init__()
        self.system: GoalSystem = system
        shapes = {
            "pair_in": (PAIR_INPUTS, PAIR_HIDDEN),
            "pair_in_bias": (PAIR_HIDDEN,),
            "pair_out": (PAIR_HIDDEN, PAIR_OUTPUTS),
            "pair_out_bias": (PAIR_OUTPUTS,),
            "own_in": (OWN_INPUTS, OWN_HIDDEN),
            "own_in_bias": (OWN_HIDDEN,),
            "own_out": (OWN_HIDDEN, OWN_OUTPUTS),
            "own_out_bias": (OWN_OUTPUTS,),
        }
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))

    heads: tuple[Any, ...] = ()  # it begins quietly by itself

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights: nearly a straight driver."""
        with torch.no_grad():
            for weight in self.parameters():
                weight.normal_(0.0, _LOUDNESS, generator=generator)

    def forward(self, observation: Tensor) -> Tensor:
        seen, w = by_name(self.system, observation), dict(self.named_parameters())  # type: ignore[arg-type]
        d, arrived = seen["goal_distance"], seen["arrived"]
        near, soft = d / (1 + d), d / (d * d + SOFT * SOFT).sqrt()
        present = (seen["contact"] > 0) & (seen["I1"] < REACH**2)
        i1 = seen["I1"].where(present, torch.ones_like(seen["I1"]))
        r = i1.clamp(min=1e-18).sqrt()
        window = ((1 - i1 / REACH**2) ** 2).where(present, torch.zeros_like(r))
        r_along, r_across = seen["r_along"] / r, seen["r_across"] / r
        each = soft.unsqueeze(-1)
        pair = [
            *(r - seen["contact"], seen["I2"] / r, seen["I3"], seen["I4"] / r),
            *(each * r_along, each * r_across, each * seen["u_along"], each * seen["u_across"]),
            *(seen["neighbour_arrived"], near.unsqueeze(-1).expand_as(r)),
            arrived.unsqueeze(-1).expand_as(r),
        ]
        hidden = functional.softsign(torch.stack(pair, -1) @ w["pair_in"] + w["pair_in_bias"])
        out = window.unsqueeze(-1) * (hidden @ w["pair_out"] + w["pair_out_bias"])
        a, b, c, e = out[..., :4].unbind(-1)
        u_along, u_across = seen["u_along"], seen["u_across"]
        along = (a * r_along - b * r_across + c * u_along - e * u_across).sum(-1)
        across = (a * r_across + b * r_along + c * u_across + e * u_along).sum(-1)
        speed = (seen["c_along"] ** 2 + seen["c_across"] ** 2 + 1e-30).sqrt()
        own = [near, soft * seen["c_along"], soft * seen["c_across"], speed, arrived]
        pooled = out[..., 4 : 4 + POOLED].sum(-2)
        inputs = torch.cat([torch.stack(own, -1), pooled], -1)
        hidden = functional.softsign(inputs @ w["own_in"] + w["own_in_bias"])
        own_out = hidden @ w["own_out"] + w["own_out_bias"]
        towards = (d / self.system.dt).clamp(max=self.system.speed)
        velocity = torch.stack(
            [along + towards * (1 + own_out[..., 0]), across + towards * own_out[..., 1]], -1
        )
        square = (velocity**2).sum(-1, keepdim=True).clamp(min=self.system.speed**2)
        asked = velocity / square.sqrt()
        if self.system.control == "acceleration":
            c = torch.stack([seen["c_along"], seen["c_across"]], -1)
            reached = self.system.max_acceleration * self.system.dt  # within a step
            asked = shortened((self.system.speed * asked - c) / reached, 1.0)
        of_neighbours = velocity.new_zeros(*velocity.shape[:-1], 4 * self.system.k)
        return torch.cat([of_neighbours, asked], -1)

    def population_forward(self, parameters: Tensor, observation: Tensor) -> Tensor:
        """See `PopulationNetwork`; compiled."""
        driver = Learned(self.system, weights=parameters.double().numpy())
        velocity = driver.velocity(rows(observation), np.empty((0, 2)))
        return action_of_velocity(self.system, velocity, observation)
