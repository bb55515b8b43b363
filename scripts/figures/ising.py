"""Ising agents beside what is exact: order and heat capacity, slowing down, samples, learners.

    python -m invariantzoo.figures.ising [--root .]

Writes docs/ising.md, docs/images/ising.png and docs/results/ising.json.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import invariantzoo
from invariantzoo.envs.core.vector import VectorEnv
from invariantzoo.envs.ising import exact
from invariantzoo.report import figure_parser, recorded, save_figure, table, write_text

SIZE, WORLDS, SWEEPS = 64, 96, 8000
CRITICAL = 2 / np.log(1 + 2**0.5)
SIDES = (8, 16, 32, 64)
SAMPLES = 100_000
SEEDS, EPISODES = 3, 200
LEARNERS = ("ising-anneal-v0", "ising-transport-v0")
TEXT = """# Spins agree with the exact curves, and PPO cools a spin glass better than annealing

![Magnetization, heat capacity, autocorrelation](images/ising.png)

Heat-bath agents on a torus of {size} x {size}, {worlds} worlds with temperatures of their own
between 1.5 and 3.5, {sweeps:,} checkerboard sweeps after as many Wolff clusters. Left: mean |m|
over the curve of the infinite lattice; below T = 2.2 they differ by {order:.1e} (root mean square).
Middle: heat capacity from fluctuations of the energy, over Onsager's curve (infinite) and
Kaufman's (this torus); from Kaufman's it differs by {heat:.1%} (root mean square, of the largest).

## Critical slowing down

Integrated autocorrelation time of |m| at T_c, in sweeps (heat bath, spins in random order), and in
clusters and in sweeps' worth of flipped spins (Wolff). Errors are those between worlds.

{slow}
Fitted powers of the side: {powers}. The known exponent of single flips
is 2.17; a cluster covers a falling share of the torus, so that Wolff's time in flipped spins grows
less than its time in clusters.

## Samples of the 4 x 4 torus

Relative entropy (KL) of a histogram of {samples:,} samples over the 65,536 states from the exact
law, at the temperatures below. That of perfect samples is not zero either, so that a sampled KL
says something only beside it; the law of a policy's own chain is judged without samples in
[Spins that learn the heat bath](heat-bath.md).

{kl}
## Learners

Spin glass, cooled from T = 3 to 0.2 in 50 sweeps: every policy has the same number of flips; shares
of {episodes} held-out episodes that saw a ground state, which is found exactly. `heat-bath` and
`metropolis` under the falling temperature are simulated annealing. PPO learns a policy of the same
invariants, with the settings of `invariantzoo train ising-anneal-v0`; they were chosen with another
seed.

{annealed}
Transport from up to down across the phases in 40 steps; dissipated work, exact log Z. No schedule
has a mean below 0; a controller that looks at the spins may, and PPO does, with the settings of
`invariantzoo train ising-transport-v0`, chosen with another seed. The geodesic is shortest for slow
changes with one relaxation time and is not the optimum.

{transported}
Made by `python -m invariantzoo.figures.ising`.
"""


def main() -> None:
    """Measure, train, draw, write."""
    import torch

    root = figure_parser(__doc__, root=Path(".")).parse_args().root
    torch.set_num_threads(1)
    path = root / "docs/results/ising.json"
    curve = recorded(path, "curve", curves)
    slow = {
        f"{policy} {side}": recorded(path, f"{policy} {side}", partial(relaxation, policy, side))
        for side in SIDES
        for policy in ("heat-bath", "wolff")
    }
    sampled = [
        [t, *(recorded(path, f"kl {t:g} {how}", partial(kl, t, how)) for how in SAMPLERS)]
        for t in (2.0, 2.5, 3.0)
    ]
    tables = {id: _learners(path, id) for id in LEARNERS}
    temperature, m = np.array(curve["temperature"]), np.array(curve["m"])
    cold = temperature < 2.2
    yang = np.array([exact.onsager(t)[3] for t in temperature])
    torus = np.array([heat_capacity(t) for t in temperature])
    text = TEXT.format(
        size=SIZE,
        worlds=WORLDS,
        sweeps=SWEEPS,
        order=np.sqrt(np.mean((m - yang)[cold] ** 2)),
        heat=np.sqrt(np.mean((np.array(curve["c"]) - torus) ** 2)) / torus.max(),
        slow=_slow(slow),
        powers="; ".join(f"{name} {power(slow, *key)}" for name, key in POWERS.items()),
        samples=SAMPLES,
        kl=table(["T", *SAMPLERS], sampled),
        episodes=EPISODES,
        annealed=tables["ising-anneal-v0"],
        transported=tables["ising-transport-v0"],
    )
    write_text(root / "docs/ising.md", text)
    draw(root / "docs/images/ising.png", curve, slow)
    print(text)


def curves() -> dict[str, list[float]]:
    """Temperature, mean |m| and heat capacity per spin of every world."""
    system: Any = invariantzoo.make_system(
        "ising-equilibrium-v0", lattice_size=SIZE, update="checkerboard", temperature=(1.5, 3.5)
    )
    env = VectorEnv(system, WORLDS, seed=0)
    env.reset()
    steps = SWEEPS * system.sweep
    env.rollout("wolff", steps, every=steps)
    records = env.rollout("heat-bath", steps, every=system.sweep)
    temperature = env.state.temperature[:, 0]
    c = SIZE**2 * records["energy"].var(0) / temperature**2
    return {
        "temperature": temperature.tolist(),
        "m": records["abs_magnetization"].mean(0).tolist(),
        "c": c.tolist(),
    }


def heat_capacity(temperature: float, step: float = 1e-3) -> float:
    """Heat capacity per spin of the torus, from second differences of Kaufman's log Z in 1 / T."""
    beta = 1 / temperature
    low, mid, high = (exact.kaufman(SIZE, 1 / (beta + d)) for d in (-step, 0.0, step))
    return beta**2 * (low - 2 * mid + high) / step**2 / SIZE**2


def relaxation(policy: str, side: int) -> dict[str, float]:
    """Integrated autocorrelation time of |m| at T_c and its error, over eight worlds."""
    worlds, sweeps = 8, {8: 50_000, 16: 100_000, 32: 200_000, 64: 600_000}[side]
    if policy == "wolff":
        sweeps = 10_000
    system: Any = invariantzoo.make_system(
        "ising-equilibrium-v0", lattice_size=side, temperature=float(CRITICAL)
    )
    env = VectorEnv(system, worlds, seed=1)
    env.reset()
    env.rollout("wolff", 500 * system.sweep, every=500 * system.sweep)
    records = env.rollout(policy, sweeps * system.sweep, every=system.sweep)
    m = records["abs_magnetization"]
    times = np.array([integrated(series) for series in m.T])
    # The mean cluster holds the mean square magnetization of the torus (Wolff 1989).
    return {
        "time": float(times.mean()),
        "error": float(times.std(ddof=1) / worlds**0.5),
        "cluster": float((m**2).mean()),
    }


def integrated(series: np.ndarray) -> float:
    """1/2 + the sum of autocorrelations up to six times itself (Sokal's window)."""
    n = len(series)
    wave = np.fft.rfft(series - series.mean(), 2 * n)
    correlation = np.fft.irfft(np.abs(wave) ** 2)[:n]
    sums = np.cumsum(correlation / correlation[0]) - 0.5
    window = int(np.argmax(np.arange(n) >= 6 * sums))
    return float(sums[window])


POWERS = {
    "heat bath": ("heat-bath", False),
    "Wolff, clusters": ("wolff", False),
    "Wolff, flipped spins": ("wolff", True),
}


def power(slow: dict[str, dict[str, float]], policy: str, flipped: bool) -> str:
    """Slope of log time against log side, weighted, with its standard error."""
    relaxations = [slow[f"{policy} {side}"] for side in SIDES]
    time = np.array([run["time"] * (run["cluster"] if flipped else 1.0) for run in relaxations])
    spread = np.array([run["error"] / run["time"] for run in relaxations])
    fit, covariance = np.polyfit(np.log(SIDES), np.log(time), 1, w=1 / spread, cov="unscaled")
    return f"{fit[0]:.2f} ± {covariance[0, 0] ** 0.5:.2f}"


def _slow(slow: dict[str, dict[str, float]]) -> str:
    rows = []
    for side in SIDES:
        flips, clusters = slow[f"heat-bath {side}"], slow[f"wolff {side}"]
        worth = clusters["time"] * clusters["cluster"]
        rows.append(
            [
                side,
                f"{flips['time']:.1f} ± {flips['error']:.1f}",
                f"{clusters['time']:.2f} ± {clusters['error']:.2f}",
                f"{worth:.2f}",
                f"{flips['time'] / worth:.0f}x",
            ]
        )
    return table(["side", "heat bath", "Wolff, clusters", "Wolff, sweeps' worth", "ratio"], rows)


SAMPLERS = ("perfect sampler", "heat-bath", "metropolis", "wolff")


def kl(temperature: float, how: str) -> float:
    """KL of the histogram of independent samples from the exact law of the 4 x 4 torus."""
    side = 4
    x = 1 / temperature
    if how == "perfect sampler":
        uniform = np.random.default_rng(0).random((SAMPLES, side))
        spin = exact.sample_rows(side, x, 0.0, uniform)
    else:
        system: Any = invariantzoo.make_system("ising-equilibrium-v0", temperature=temperature)
        env = VectorEnv(system, SAMPLES, seed=2)
        env.reset()
        env.rollout(how, 200 * system.sweep, every=200 * system.sweep)
        spin = env.state.spin
    code = ((spin > 0) @ (1 << np.arange(side**2))).astype(int)
    share = np.bincount(code, minlength=2 ** (side**2)) / len(code)
    seen = np.flatnonzero(share)
    grid = 2 * (seen[:, None] >> np.arange(side**2) & 1).reshape(-1, side, side) - 1
    bonds = (grid * (np.roll(grid, 1, 1) + np.roll(grid, 1, 2))).sum((1, 2))
    log_law = x * bonds - exact.log_z(side, x, 0.0)
    return float(share[seen] @ (np.log(share[seen]) - log_law))


def _learners(path: Path, id: str) -> str:
    """A table of built-in policies and of PPO on held-out episodes."""
    names = {"ising-anneal-v0": ("solved", "residual_energy")}.get(id, ("dissipation",))
    own = tuple(invariantzoo.make_system(id).policies())
    rows = []
    for policy in own:
        rows.append([policy, *recorded(path, f"{id} {policy}", partial(scored, id, policy, names))])
    for seed in range(SEEDS):
        key = f"{id} ppo {seed}"
        rows.append([f"PPO, seed {seed}", *recorded(path, key, partial(learned, id, seed, names))])
    return table(["policy", *names], rows)


def scored(id: str, policy: str, names: tuple[str, ...]) -> list[float]:
    """Means of metrics under a built-in policy."""
    from invariantzoo.agents.policy import make_policy

    return _means(id, make_policy(policy, invariantzoo.make_system(id)), names)


def learned(id: str, seed: int, names: tuple[str, ...]) -> list[float]:
    """The same of a trained one."""
    from invariantzoo.training.rl import algorithms as trainer

    system = invariantzoo.make_system(id)
    hyper = trainer.make_config(id, "ppo", {})
    steps = trainer.default_steps(id, "ppo")
    run: Any = trainer.make_trainer("ppo", system, hyper, seed=seed, steps=steps)
    for _ in run:
        pass
    return _means(id, run.policy(), names)


def _means(id: str, policy: Any, names: tuple[str, ...]) -> list[float]:
    from invariantzoo.training.rl.score import evaluate

    system = invariantzoo.make_system(id)
    scores = evaluate(
        system, policy, episodes=EPISODES, seeds=1, deterministic=not system.stochastic
    )
    return [float(scores[name].mean()) for name in names]


def draw(path: Path, curve: dict[str, list[float]], slow: dict[str, dict[str, float]]) -> None:
    """The three panels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.8))
    axes = figure.subplots(1, 3)
    line = np.linspace(1.5, 3.5, 400)
    axes[0].plot(line, [exact.onsager(t)[3] for t in line], "k", lw=1, label="infinite")
    axes[0].plot(curve["temperature"], curve["m"], "o", ms=3, label=f"agents, {SIZE} x {SIZE}")
    axes[0].set(xlabel="T", title="magnetization per spin")
    axes[1].plot(line, [exact.onsager(t)[2] for t in line], "k", lw=1, label="infinite")
    axes[1].plot(
        line, [heat_capacity(t) for t in line], "C1", lw=1, label=f"exact, {SIZE} x {SIZE}"
    )
    axes[1].plot(curve["temperature"], curve["c"], "o", ms=3, label="agents")
    axes[1].set(xlabel="T", title="heat capacity per spin", ylim=(0, 3))
    for policy in ("heat-bath", "wolff"):
        relaxations = [slow[f"{policy} {side}"] for side in SIDES]
        time, error = [run["time"] for run in relaxations], [run["error"] for run in relaxations]
        axes[2].errorbar(SIDES, time, error, marker="o", ms=3, lw=1, capsize=2, label=policy)
    axes[2].set(xscale="log", yscale="log", xlabel="side", title="autocorrelation time at T_c")
    axes[2].set_xticks(SIDES, [str(side) for side in SIDES])
    axes[2].minorticks_off()
    for axis in axes:
        axis.legend(frameon=False, fontsize=8)
    save_figure(figure, path)


if __name__ == "__main__":
    main()
