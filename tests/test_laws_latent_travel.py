"""Travel through planes with a metric: lengths, shortest paths, coordinates, arrival."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import invariantzoo
from invariantzoo import MetricTable, evaluate, geodesic, make_policy
from invariantzoo.envs.core.rng import Rng
from invariantzoo.envs.latent_travel import chart
from invariantzoo.envs.latent_travel.travel import METRICS, LatentTravel


def test_lengths_of_lines_in_a_plane_of_constant_curvature() -> None:
    """Upright lines of the normal law's plane, diag(1, 2) / y^2, are sqrt 2 ln(y2 / y1) long."""
    y = np.linspace(0.5, 1.5, 97)
    metrics = np.zeros((97, 97, 2, 2))
    metrics[..., 0, 0], metrics[..., 1, 1] = 1 / y**2, 2 / y**2
    factor = torch.from_numpy(chart.factor_of(metrics))[None]
    start, end = torch.tensor([[[0.3, 0.1], [0.1, 0.5]]]), torch.tensor([[[0.3, 0.9], [0.9, 0.5]]])
    only = torch.zeros(1, dtype=torch.int64)
    found = chart.line_length(factor, only, start.double(), end.double(), 64)[0]
    exact = torch.tensor([math.sqrt(2) * math.log(1.4 / 0.6), 0.8], dtype=torch.float64)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=0)


@pytest.mark.parametrize("metric", METRICS)
def test_shipped_paths_are_as_short_as_those_of_geodesic(metric: str) -> None:
    """Another search, with smooth paths in the same metric, finds none that is .5 % shorter."""
    charts = chart.read(metric)
    a, b, c = charts.factor[0].double().unbind(-1)
    a, c = a.exp(), c.exp()
    rows = torch.stack([a * a, a * b, a * b, b * b + c * c], -1).view(*a.shape, 2, 2)
    grid = np.linspace(0, 1, len(rows))
    table = MetricTable((grid, grid), rows.numpy())
    chosen = slice(-8, None)
    ends = charts.ends[0, chosen].numpy()
    other = geodesic(table, ends[:, 0], ends[:, 1], order=16, starts=3, steps=100)
    points = torch.from_numpy(other.points).clamp(0, 1)[None]  # nobody leaves the window
    only = torch.zeros(1, dtype=torch.int64)
    lengths = chart.line_length(charts.factor, only, points[:, :, :-1], points[:, :, 1:], 8).sum(-1)
    assert (charts.lengths[0, chosen] <= 1.005 * lengths[0]).all()
    assert (charts.lengths[0, chosen] >= 0.8 * lengths[0]).all()  # the two are of one metric


@pytest.mark.parametrize("metric", METRICS)
def test_no_move_of_a_point_makes_a_shipped_path_shorter(metric: str) -> None:
    """Moves of one point at a time, and no way by a waypoint is shorter than the path either."""
    system = LatentTravel(metric)
    state = system.initial(Rng.single(4, 200), 200)
    path, number = state.path, state.chart[:, 0]

    def length(points: torch.Tensor) -> torch.Tensor:
        table = chart.read(metric).factor
        return chart.line_length(table, number, points[:, :-1], points[:, 1:], 32).sum(-1)

    torch.testing.assert_close(length(path), state.shortest[:, 0], rtol=1e-5, atol=0)
    for point in (5, 20, 35):
        for shift in 0.01 * torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]):
            other = path.clone()
            other[:, point] = (other[:, point] + shift).clamp(0, 1)
            assert (length(other) > 0.999 * length(path)).all()
    arrived = evaluate(
        system, make_policy("detour", system), episodes=200, seeds=1, deterministic=True
    )
    assert arrived["ratio"].min() > 0.995


@pytest.mark.parametrize("metric", METRICS)
def test_the_geodesic_arrives_at_its_length(metric: str) -> None:
    system = LatentTravel(metric, held_out=True)
    scores = evaluate(
        system, make_policy("geodesic", system), episodes=60, seeds=1, deterministic=True
    )
    assert scores["failures"].max() == 0
    assert 0.998 < scores["ratio"].mean() < 1.02
    assert scores["ratio"].min() > 0.99
    np.testing.assert_allclose(scores["return"], -scores["ratio"], rtol=1e-12)


def test_agents_see_what_waypoints_save() -> None:
    """From the lengths of both legs, and of the straight line, in coordinates of the window."""
    system = LatentTravel()
    state = system.initial(Rng.single(5, 40), 40)
    seen, factor = system.invariants(state), chart.read("digits").factor
    gap = state.target - state.point
    aside = torch.stack([-gap[:, 1], gap[:, 0]], -1)

    def length(start: torch.Tensor, end: torch.Tensor, parts: int) -> torch.Tensor:
        return chart.line_length(factor, state.chart[:, 0], start, end, parts)

    line, savings = length(state.point, state.target, 32), []
    for side in (0.4, -0.4):  # half way along: the fifth of the waypoints
        point = (state.point + 0.5 * gap + side * aside).clamp(0, 1)
        way = length(state.point, point, 16) + length(point, state.target, 16)
        savings.append((1 - way / line).clamp(min=0))
    left, right = savings
    assert (torch.maximum(left, right) > 0.02).any()
    torch.testing.assert_close(seen["savings"][:, 0, 4], (left + right) / 2)
    torch.testing.assert_close(seen["sides"][:, 0, 4], (left - right) / 2)


def test_who_has_arrived_sees_zeros_and_changes_nobody_elses_view() -> None:
    system = LatentTravel()
    state = system.initial(Rng.single(6, 6), 6)
    there = torch.tensor([0, 1, 0, 0, 1, 0], dtype=torch.bool)
    seen = system.invariants(state)
    arrived = state._replace(point=torch.where(there[:, None], state.target, state.point))
    for name, value in system.invariants(arrived).items():
        assert not value[there].any()
        torch.testing.assert_close(value[~there], seen[name][~there])
    everyone = system.invariants(state._replace(point=state.target))
    assert not any(value.any() for value in everyone.values())


def test_who_does_not_arrive_pays_for_it() -> None:
    """One step of the straight line at a horizon of 1: step and rest are its length, and `miss`."""
    system = LatentTravel(horizon=1, miss=2.0)
    state = system.initial(Rng.single(0, 20), 20)
    still = torch.zeros(20, 1, 1, dtype=torch.float64)
    after = system.transition(state, still, Rng.single(1, 20))
    loss = system.loss(state, still, after)[:, 0]
    scores = system.metrics(state, still, after)
    charts = chart.read("digits")
    line = chart.line_length(charts.factor, state.chart[:, 0], state.point, state.target, 256)
    torch.testing.assert_close(scores["ratio"], line / state.shortest[:, 0], rtol=2e-3, atol=0)
    torch.testing.assert_close(loss, scores["ratio"] + 2.0)
    assert bool((scores["failures"] == 1).all())
    assert not bool(system.terminated(after).any())


def test_a_unit_of_length_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A metric ten times as large, with its paths' lengths, gives the same to see and to pay."""
    charts = chart.read("digits")
    scale = torch.tensor([0.5 * math.log(10), 0.0, 0.5 * math.log(10)])
    factor = charts.factor.clone() + scale
    factor[..., 1] *= math.sqrt(10)
    system = LatentTravel()
    state = system.initial(Rng.single(0, 8), 8)
    action = 2 * Rng.single(1, 8).uniform(8, 1, 1) - 1
    after = system.transition(state, action, Rng.single(2, 8))
    seen, loss = system.invariants(after), system.loss(state, action, after)
    monkeypatch.setattr(chart, "read", lambda name: charts._replace(factor=factor))
    state = state._replace(shortest=math.sqrt(10) * state.shortest)
    other = system.transition(state, action, Rng.single(2, 8))
    torch.testing.assert_close(system.loss(state, action, other), loss, rtol=1e-5, atol=0)
    for name, value in system.invariants(other).items():
        torch.testing.assert_close(value, seen[name], rtol=1e-4, atol=1e-5)


def test_gradient_is_down_the_distance_under_the_metric() -> None:
    """The policy's heading is that of g^-1 (target - x), found from the table directly."""
    system = LatentTravel("tasep")
    state = system.initial(Rng.single(3, 50), 50)
    heading = math.pi * system.policies()["gradient"](system.invariants(state), Rng.single(0, 50))
    charts, gap = chart.read("tasep"), state.target - state.point
    a, b, c = chart.factor_at(charts.factor, state.chart[:, 0], state.point)
    way = torch.stack([(b * b + c * c) * gap[:, 0] - a * b * gap[:, 1]], -1)
    way = torch.cat([way, (a * a * gap[:, 1] - a * b * gap[:, 0])[:, None]], -1)
    cross = gap[:, 0] * way[:, 1] - gap[:, 1] * way[:, 0]
    angle = torch.atan2(cross, (gap * way).sum(-1))
    torch.testing.assert_close(heading[:, 0, 0], angle, rtol=1e-9, atol=1e-9)


def test_held_out_pairs_are_others() -> None:
    for metric in METRICS:
        charts = chart.read(metric)
        kept = charts.ends[:, -charts.held_out :].flatten(0, 1).flatten(1)
        known = charts.ends[:, : -charts.held_out].flatten(0, 1).flatten(1)
        assert torch.cdist(kept, known).min() > 1e-6


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"metric": "faces"}, "metric='faces'"),
        ({"held_out": 1}, "held_out=1"),
        ({"delta": 0.01}, "delta=0.01"),
        ({"stride": 0.0}, "stride=0.0"),
    ],
)
def test_bad_parameters(parameters: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        invariantzoo.make_system("latent-travel-v0", **parameters)
