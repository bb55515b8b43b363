"""Power laws: exact exponents, honest verdicts, and the traps on the way to them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import invariantzoo
from invariantzoo.training.geometry.power_law import (
    fit_power_law,
    running_exponents,
    top_window,
)

N = 1_000_000
RNG = np.random.default_rng


def truncated(k: float, low: float, high: float, n: int, seed: int = 1) -> np.ndarray:
    """n samples of P(q) ~ q^-k on [low, high]."""
    u = RNG(seed).random(n)
    if k == 1:
        return low * (high / low) ** u
    return (low ** (1 - k) + u * (high ** (1 - k) - low ** (1 - k))) ** (1 / (1 - k))


@pytest.mark.parametrize("k", [0.0, 0.5, 1.0, 1.0001, 1.5, 2.0, 2.5, 4.0])
def test_a_power_law_is_one(k: float) -> None:
    fit = fit_power_law(truncated(k, 1e-3, 1.0, 100_000), 1e-3, 1.0)
    assert abs(fit.exponent - k) < 4 * fit.error
    assert fit.n == 100_000
    assert fit.ks < 1.4 / math.sqrt(fit.n)
    assert len(fit.decades) == 3
    if 0.5 <= k <= 2:  # elsewhere a decade is nearly empty
        assert fit.is_power_law
        assert fit.verdict.startswith("power law, k = ")


def test_the_error_is_that_of_many_repetitions() -> None:
    fits = [fit_power_law(truncated(1.5, 0.1, 10, 500, seed), 0.1, 10) for seed in range(300)]
    pulls = [(fit.exponent - 1.5) / fit.error for fit in fits]
    assert np.std(pulls) == pytest.approx(1, abs=0.12)
    assert abs(np.mean(pulls)) < 0.2


def test_one_minus_the_exponent_flips_with_the_window() -> None:
    """If q has k, 1 / q has 2 - k on the window of reciprocals."""
    q = truncated(1.7, 0.01, 1, 5000)
    there, back = fit_power_law(q, 0.01, 1), fit_power_law(1 / q, 1, 100)
    assert there.exponent == pytest.approx(2 - back.exponent, abs=1e-9)
    assert there.error == pytest.approx(back.error, rel=1e-9)
    assert there.ks == pytest.approx(back.ks, abs=1e-12)


def test_what_bends_is_none() -> None:
    """A broad bump, a cut-off, a bend of .25, and two laws that meet."""
    rng = RNG(2)
    bump = np.exp(3 * rng.normal(size=N))
    low, high = top_window(bump)
    fit = fit_power_law(bump, low, high)
    assert not fit.is_power_law
    assert "no power law: k = " in fit.verdict
    assert list(fit.decades) == sorted(fit.decades)
    cut = truncated(1.5, 1e-3, 1, N) * rng.exponential(size=N)
    assert not fit_power_law(cut, 1e-3, 3).is_power_law
    two = np.concatenate([truncated(1.2, 1e-3, 1, N // 2), truncated(1.8, 1e-3, 1, N // 2)])
    assert not fit_power_law(two, 1e-3, 1).is_power_law


def test_each_of_the_two_conditions_counts() -> None:
    """Parts that agree but a distribution that does not; a distribution that does but no parts."""
    law = truncated(1.0, 1e-3, 1.0, 30_000)
    steps = 10 ** (np.round(np.log10(law) * 8) / 8)  # on a comb
    comb = fit_power_law(steps, 9e-4, 1.2)
    assert max(comb.decades) - min(comb.decades) < 0.1
    assert not comb.is_power_law
    few = fit_power_law(law[300:480], 1e-3, 1.0)
    assert few.ks < 1.4 / math.sqrt(few.n)
    assert max(few.decades) - min(few.decades) > 0.1
    assert not few.is_power_law


def test_parts_of_a_window() -> None:
    q = truncated(1.0, 1e-5, 1.0, 100_000)
    assert len(running_exponents(q, 1e-5, 1.0)) == 5
    assert len(running_exponents(q, 1e-3, 1.0)) == 3
    assert len(running_exponents(q, 0.1, 1.0)) == 3
    assert np.allclose(running_exponents(q, 1e-5, 1.0), 1, atol=0.05)
    assert math.isnan(running_exponents(q[q > 0.01], 1e-5, 1.0)[0])
    assert not fit_power_law(q[q > 1e-4], 1e-5, 1.0).is_power_law


def test_what_is_outside_is_dropped() -> None:
    q = truncated(1.5, 1e-2, 1.0, 3000)
    more = torch.from_numpy(np.concatenate([q, [0.0, -1.0, 5.0, math.inf]])).reshape(-1, 1)
    assert fit_power_law(more, 1e-2, 1.0) == fit_power_law(q, 1e-2, 1.0)
    with pytest.raises(ValueError, match=r"samples: 49 of 49 lie in \[0.01, 1\]; a fit needs 50"):
        fit_power_law(q[:49], 0.01, 1.0)
    with pytest.raises(ValueError, match="low=0 must be a finite number: above 0"):
        fit_power_law(q, 0, 1.0)
    with pytest.raises(ValueError, match=r"high=0.01 must be a finite number: above 0.1"):
        fit_power_law(q, 0.1, 0.01)
    with pytest.raises(ValueError, match=r"their 99\.9 % quantile is 0"):
        top_window(np.zeros(100))


def test_it_is_public() -> None:
    assert invariantzoo.fit_power_law is fit_power_law


# The table: densities of gradients that follow from a density of the data


def uniform(high: float) -> np.ndarray:
    return RNG(4).uniform(0, high, 4 * N)


def exponential() -> np.ndarray:
    return RNG(5).exponential(2.0, 4 * N)  # rate 1/2


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -x))


def softsign_slope(x: np.ndarray) -> np.ndarray:
    return (1 + np.abs(x)) ** -2.0


def softsign_left(x: np.ndarray) -> np.ndarray:
    """1 - softsign of a margin, without cancellation."""
    return 1 / (1 + np.abs(x))


def tanh_left(x: np.ndarray) -> np.ndarray:
    """1 - tanh of a margin, without cancellation."""
    return 2 * sigmoid(-2 * x)


ROWS: dict[str, tuple[Any, float, float, float]] = {  # samples, window, exact exponent
    "softsign, MSE, bias": (
        lambda: softsign_left(uniform(1e4)) * softsign_slope(uniform(1e4)),
        1e-11,
        1e-5,
        4 / 3,
    ),
    "softsign, MSE, weight": (
        lambda: uniform(1e4) * softsign_left(uniform(1e4)) * softsign_slope(uniform(1e4)),
        1e-7,
        1e-4,
        3 / 2,
    ),
    "softsign, matched": (lambda: softsign_left(uniform(1e4)), 3e-4, 3e-2, 2.0),
    "sigmoid, CE": (lambda: sigmoid(-uniform(60)), 1e-20, 1e-3, 1.0),
    "sigmoid, MSE": (
        lambda: sigmoid(-uniform(60)) ** 2 * sigmoid(uniform(60)),
        1e-40,
        1e-4,
        1.0,
    ),
    "exponential, sigmoid, CE": (lambda: sigmoid(-exponential()), 1e-8, 1e-3, 1 / 2),
    "exponential, sigmoid, MSE": (
        lambda: sigmoid(-exponential()) ** 2 * sigmoid(exponential()),
        1e-14,
        1e-5,
        3 / 4,
    ),
    "exponential, tanh, MSE": (
        lambda: tanh_left(exponential()) ** 2 * (2 - tanh_left(exponential())),
        1e-20,
        1e-5,
        7 / 8,
    ),
    "smooth at 0, x^2": (lambda: RNG(6).normal(size=4 * N) ** 2, 1e-8, 1e-3, 1 / 2),
    "smooth at 0, x^3": (lambda: np.abs(RNG(6).normal(size=4 * N)) ** 3, 1e-9, 1e-3, 2 / 3),
}


@pytest.mark.parametrize("row", ROWS)
def test_the_table_of_exponents(row: str) -> None:
    samples, low, high, exact = ROWS[row]
    fit = fit_power_law(samples(), low, high)
    assert fit.exponent == pytest.approx(exact, abs=0.01)
    assert fit.n > 10_000


def test_the_trap_of_softplus_and_cancellation() -> None:
    """f(z) - t from a rounded f loses the tail, of which the right form keeps the law."""
    margin = uniform(60)
    right = fit_power_law(sigmoid(-margin), 1e-20, 1e-3)
    cancelled = 1 - 1 / (1 + np.exp(-margin))
    lost = (cancelled < 1e-16).mean()
    assert right.exponent == pytest.approx(1, abs=0.002)
    assert lost > 0.35
    coarse = fit_power_law(cancelled[cancelled > 0], 1e-20, 1e-3)
    assert not coarse.is_power_law
    logits = torch.from_numpy(margin[:200_000]).float().requires_grad_()
    torch.nn.functional.softplus(-logits).sum().backward()  # linear above 20: its slope is exact
    assert logits.grad is not None
    torch.testing.assert_close(-logits.grad, torch.sigmoid(-logits.detach()), rtol=1e-5, atol=0)
    naive = (torch.sigmoid(logits.detach()) - 1).abs()
    assert float((naive == 0).double().mean()) > 0.6


def test_a_part_without_samples_is_no_agreement() -> None:
    """A steep law leaves the upper decades empty: one decade that is seen does not make three."""
    fit = fit_power_law(truncated(3.5, 1, 1000, 400), 1, 1000)
    assert math.isfinite(fit.decades[0])
    assert math.isnan(fit.decades[-1])
    assert fit.ks < 1.4 / math.sqrt(fit.n)
    assert not fit.is_power_law


@pytest.mark.parametrize("value", [1.0, 30.0, 1000.0])
def test_equal_samples_have_no_law(value: float) -> None:
    """Neither an overflow nor a NaN, at whichever end of the window they lie."""
    fit = fit_power_law(np.full(100, value), 1, 1000)
    assert math.isfinite(fit.exponent)
    assert 0.3 < fit.ks <= 1
    assert not fit.is_power_law


def test_samples_of_other_kinds() -> None:
    q = truncated(1.5, 1, 100, 2000)
    exact = fit_power_law(np.float32(q), 1, 100).exponent
    assert fit_power_law(torch.from_numpy(q).float().requires_grad_(), 1, 100).exponent == exact
    coarse = fit_power_law(torch.from_numpy(q).bfloat16(), 1, 100).exponent
    assert coarse == pytest.approx(exact, abs=0.02)
    whole = np.arange(1, 101)
    assert fit_power_law(whole, 1, 100) == fit_power_law(whole.astype(float), 1, 100)


def test_samples_that_are_refused() -> None:
    for samples, message in (
        (np.r_[np.ones(99), np.nan], "samples: 1 of 100 are NaN"),
        (torch.full((60,), math.nan), "samples: 60 of 60 are NaN"),
        (np.ones(60) + 1j, "samples are complex"),
        ([2.0], r"samples: 1 of 1 lie in \[1, 100\]; a fit needs 50"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_power_law(samples, 1, 100)
    with pytest.raises(ValueError, match="high=1 must be a finite number: above 100"):
        fit_power_law(np.ones(60), 100, 1)
    for samples, message in (([], "there are none"), ([math.inf] * 9, "above 0 and finite")):
        with pytest.raises(ValueError, match=message):
            top_window(samples)
