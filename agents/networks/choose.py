"""Networks from a flat observation [..., size] to an action (its mean, or logits) [..., actions].

"pair"  the covariant pair policy: one small net, shared by all neighbours, from that neighbour's
        invariants to its coefficients A..D, and one learned number E for the agent's own p
"set"   permutation-invariant: neighbours are embedded, pooled under the window, and the pool goes
        with each neighbour's embedding to its coefficients (or alone to a joint action)
"driver" the learned driver of discs with goals, whose form is its own
"linear" weights on the observation, for systems whose action changes sign with what is seen
"mlp"   a plain network on the whole observation: the reference that knows no symmetry
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...envs.core.system import System
from ...envs.core.validation import nearest
from .layers import action_size as action_size
from .layers import initialise as initialise
from .neighbours import PairNetwork, SetNetwork
from .plain import LinearNetwork, PlainNetwork

# Untrained agents hardly act: loud ones throw each other off any course worth learning.
_QUIET = 0.1


def network_names(system: System) -> list[str]:
    """Networks that fit a system, best suited first."""
    neighbourhood = system.neighbourhood
    if neighbourhood is None:
        return [*system.networks, "mlp"]
    pair = ["pair"] if neighbourhood.coefficients else []
    return [*system.networks, *pair, "set", "mlp"]


def make_network(name: str, system: System, seed: int = 0, *, width: int = 24) -> nn.Module:
    """A freshly initialised network for a system; raises KeyError for one that does not fit."""
    known = network_names(system)
    if name not in known:
        hint = nearest(name, known)
        raise KeyError(f"unknown network {name!r}{hint} (this environment has {', '.join(known)})")
    if name == "driver":
        from .driver import DriverNetwork  # compiled: numba is imported where it is used

        network: Any = DriverNetwork(system, width)
    else:
        build: dict[str, Any] = {"pair": PairNetwork, "set": SetNetwork}
        build |= {"linear": LinearNetwork, "mlp": PlainNetwork}
        network = build[name](system, width)
    initialise(network, seed)
    with torch.no_grad():
        for head in network.heads:
            head.weight.mul_(_QUIET)
            head.bias.mul_(_QUIET)
    return network
