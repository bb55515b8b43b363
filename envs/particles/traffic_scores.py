"""What traffic costs and how it is scored, in torch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.physics.invariants import galilean_pair
from .traffic_geometry import Pairs
from .traffic_kinds import Tables
from .traffic_state import State

TOLERANCE = 1e-3  # what is deeper counts as a contact, length; what is faster as speeding
SOFTENING = 1e-30  # under roots


def costs(pairs: Pairs, kind: Tensor, tables: Tables) -> Tensor:
    """What each agent, of code `kind` [worlds, agents], loses by all it sees [..., k]."""
    own, other = (kind - 1).unsqueeze(-1).expand_as(pairs.kind), (pairs.kind - 1).clamp(min=0)
    margin, weight, foresight = (
        torch.from_numpy(table).to(own.device)[own, other]
        for table in (tables.margin, tables.weight, tables.foresight)
    )
    four = galilean_pair(pairs.r, pairs.u)
    reach, i3 = margin * pairs.contact, four["I3"] + SOFTENING
    near = (reach - (four["I1"] + SOFTENING).sqrt()).clamp(min=0)
    time = -four["I2"] / i3
    miss = (reach - four["I4"].abs() / i3.sqrt()).clamp(min=0)
    ahead = (1 - time / foresight.clamp(min=SOFTENING)) * miss
    ahead = ahead.where((four["I2"] < 0) & (time < foresight), 0.0)
    return (weight * (near**2 + ahead**2)).where(pairs.present, 0.0)


def scores(
    s: State,
    speed: Tensor,
    dt: float,
    flows: dict[str, int],
    contacts: dict[str, tuple[int, int, int]],
    building: int,
) -> dict[str, Tensor]:
    """The metrics [worlds] that `Traffic.metrics` describes.

    speed [worlds, agents]: full speeds.  flows: codes of kinds by the metric's name; contacts: of
    two kinds, and the number of pairs; building: the code of buildings.
    """
    arrived = s.arrival_time >= 0
    hit = (s.touched.amax(-1) > 0) | (s.struck.amax(-1) > 0)
    ok, straight = arrived & ~hit, s.distance / speed
    time = torch.where(arrived, s.arrival_time, s.steps * dt)
    flow, share = {}, {}
    for name, code in flows.items():
        own = s.kind == code
        flow[name] = (arrived & own).sum(-1) / time.where(own, 0.0).amax(-1)
    for name, (one, other, number) in contacts.items():
        rows, columns = (s.kind == one).unsqueeze(-1), (s.kind == other).unsqueeze(-2)
        met = s.struck * rows if other == building else s.touched * (rows & columns)
        share[name] = met.sum((1, 2)) / number
    n, m = s.struck.shape[1:]
    touches = s.touched.sum((1, 2)) + s.struck.sum((1, 2))
    return {
        "ok": ok.double().mean(-1),
        "all_ok": ok.all(-1).double(),
        "hit": hit.double().mean(-1),
        "arrived": arrived.double().mean(-1),
        "flow": arrived.sum(-1) / time.amax(-1),
        **flow,
        "time_ratio": time.where(ok, 0.0).sum(-1) / straight.where(ok, 0.0).sum(-1),
        "over_limit": s.over.sum(-1) / s.watched.sum(-1),
        "deepest_overlap": s.deepest.amax(-1),
        "effort": (s.effort.sum(-1) * dt / time.sum(-1)).sqrt(),
        "contact": touches / (n * (n - 1 + m)),
        **share,
    }
