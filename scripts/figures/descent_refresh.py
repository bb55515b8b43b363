"""What keeping eigenvectors costs and saves: steps, losses and CPU time by metric and refresh.

    python -m invariantzoo.figures.descent_refresh [--out docs] [--seeds 8] [--without-ppo]

Every run takes the same steps at every `refresh`, from the same start and with the same batches, so
that its losses can be divided by those of refresh 1. Writes descent-refresh.md and its json. Digits
need the extra "bench".
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from invariantzoo.report import figure_parser, recorded, table, write_text
from invariantzoo.training.optim.cgd import CGD
from invariantzoo.training.optim.metrics import coefficients, inverse_metric, longest

TAU1, TAU2 = 9.0, 999.0
REFRESHES = (1, 10, 100)
PARTS = 4  # the loss is looked at after every quarter of the steps
METRICS: dict[str, dict[str, Any]] = {
    "full": {"metric": "full"},
    "block": {"metric": "block"},
    "row": {"metric": "block", "blocks": "row"},
    "lowrank": {"metric": "lowrank"},  # decomposes at every step, whatever `refresh` is
}


class Problem(NamedTuple):
    """Parameters, their gradients at a step, and what is reported of them."""

    params: list[nn.Parameter]
    backward: Callable[[int], None]
    loss: Callable[[], float]


class Setting(NamedTuple):
    """How a problem is made from a seed, the step size, and the number of steps."""

    make: Callable[[int], Problem]
    lr: float
    steps: int
    description: str


def regression(batch: int, seed: int) -> Problem:
    """A network 3-16-1 (81 weights) learns the product of its inputs on 64 points."""
    generator = torch.Generator().manual_seed(seed)
    net = _network((3, 16, 1), generator)
    x = torch.randn(64, 3, generator=generator)
    y = x.prod(1, keepdim=True)

    def loss(rows: Any) -> Tensor:
        return (net(x[rows]) - y[rows]).square().mean()

    return _learning(net, loss, lambda: _rows(64, batch, generator))


def digits(seed: int) -> Problem:
    """A network 16-8-10 (226 weights) on digits of 4 x 4 pixels, batches of 32."""
    pixels, labels = _digits()
    generator = torch.Generator().manual_seed(seed)
    net = _network((16, 8, 10), generator)

    def loss(rows: Any) -> Tensor:
        return nn.functional.cross_entropy(net(pixels[rows]), labels[rows])

    return _learning(net, loss, lambda: _rows(len(labels), 32, generator))


def rosenbrock(seed: int) -> Problem:
    """(1 - x)^2 + 100 (y - x^2)^2 from a start in [-2, 2]^2."""
    generator = torch.Generator().manual_seed(seed)
    q = nn.Parameter(4 * torch.rand(2, generator=generator, dtype=torch.float64) - 2)

    def value() -> Tensor:
        return (1 - q[0]) ** 2 + 100 * (q[1] - q[0] ** 2) ** 2

    def backward(_: int) -> None:
        q.grad = None
        value().backward()

    return Problem([q], backward, lambda: float(value().detach()))


SETTINGS: dict[str, Setting] = {
    "regression, full batch": Setting(
        partial(regression, 0), 0.01, 400, "3-16-1 (81 weights), product of the inputs, 64 points"
    ),
    "regression, batches of 8": Setting(
        partial(regression, 8), 0.01, 240, "The same; reported is the loss on all points"
    ),
    "digits": Setting(
        digits, 0.01, 160, "4 x 4 pixels (scikit-learn), 16-8-10 (226 weights), batches of 32"
    ),
    "Rosenbrock": Setting(rosenbrock, 0.02, 240, "Two parameters, exact gradients"),
}
PPO_ID, PPO_UPDATES = "quadratic-regimes-v0", 4
PPO = {"n_worlds": 8, "batch_size": 128, "width": 8, "critic_width": 8}
PPO_NAME = f"PPO on {PPO_ID}"


@contextlib.contextmanager
def measured() -> Iterator[dict[str, float]]:
    """CPU seconds of the steps that CGD makes meanwhile, the longest over lr, and what is allowed.

    Of several optimizers it is the step that is longest for what is allowed to it.
    """
    seen = {"seconds": 0.0, "longest": 0.0, "allowed": 1.0}
    before: list[Tensor] = []
    start = 0.0

    def note(optimizer: Any, *_: Any) -> None:
        nonlocal start
        if isinstance(optimizer, CGD):
            before[:] = [p.detach().clone() for p in _parameters(optimizer)]
            start = time.process_time()

    def compare(optimizer: Any, *_: Any) -> None:
        if isinstance(optimizer, CGD):
            seen["seconds"] += time.process_time() - start
            pairs = zip(_parameters(optimizer), before, strict=True)
            far = math.sqrt(sum(float((p.detach() - q).double().square().sum()) for p, q in pairs))
            far /= float(optimizer.param_groups[0]["lr"]) or math.inf
            bound = allowed(optimizer)
            if far / bound >= seen["longest"] / seen["allowed"]:
                seen.update(longest=far, allowed=bound)

    handles = (register_optimizer_step_pre_hook(note), register_optimizer_step_post_hook(compare))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def run(name: str, metric: str, refresh: int, seed: int) -> dict[str, Any]:
    """Loss after every quarter of the steps, the longest step over lr, CPU seconds of the steps."""
    if name == PPO_NAME:
        return _ppo(metric, refresh, seed)
    setting = SETTINGS[name]
    problem = setting.make(seed)
    given: dict[str, Any] = {"tau1": TAU1, "tau2": TAU2, "refresh": refresh, **METRICS[metric]}
    optimizer = CGD(problem.params, setting.lr, **given)
    losses = [problem.loss()]
    with measured() as seen:
        for step in range(setting.steps):
            problem.backward(step)
            optimizer.step()
            if (step + 1) % (setting.steps // PARTS) == 0:
                losses.append(problem.loss())
    return _result(losses, seen)


def runs_of(name: str, metric: str, refresh: int, seeds: int) -> list[dict[str, Any]]:
    """Results of every seed, compiled code being loaded before."""
    warm = nn.Parameter(torch.zeros(2))
    optimizer = CGD([warm], 0.0, refresh=2, **METRICS["full"])
    for _ in range(30):
        warm.grad = torch.ones(2)
        optimizer.step()
    return [run(name, metric, refresh, seed) for seed in range(seeds)]


def _ppo(metric: str, refresh: int, seed: int) -> dict[str, Any]:
    import invariantzoo
    from invariantzoo.training.rl.algorithms import make_config, make_trainer

    system = invariantzoo.make_system(PPO_ID)
    given = {"optimizer": "cgd", "metric": metric, "cgd_refresh": refresh, "cgd_tau2": TAU2}
    config = make_config(PPO_ID, "ppo", {**PPO, **given})
    rows = config.n_worlds * config.n_steps * system.n_agents
    trainer = make_trainer("ppo", system, config, seed=seed, steps=rows * PPO_UPDATES)
    with measured() as seen:
        losses = [update.loss for update in trainer]
    every = PPO_UPDATES // PARTS
    return _result([losses[0], *losses[every - 1 :: every]], seen)


def agreement(seed: int) -> dict[str, list[float]]:
    """Of learning from all data with a full metric at refresh 10: kept steps beside exact ones.

    At the last step before a renewal, early (steps 40 to 160) and late: mean cosine between the
    step and that of the metric decomposed there and then, and mean ratio of their lengths.
    """
    problem = regression(0, seed)
    optimizer = CGD(problem.params, 0.01, tau1=TAU1, tau2=TAU2, refresh=10, metric="full")
    group = optimizer.param_groups[0]
    agreements: dict[str, list[tuple[float, float]]] = {"early": [], "late": []}
    for step in range(1, 401):
        problem.backward(step)
        before = _flat(problem.params)
        optimizer.step()
        moments = optimizer.state[problem.params[0]]
        if step > 40 and step - moments["renewed"] == min(9, math.ceil(0.1 * step) - 1):
            c = coefficients(group, step)
            inverse = inverse_metric(moments["second_moment"][0], group["alpha"], c.eps, c.zeta)
            exact = c.gain * c.root * inverse @ moments["first_moment"][0]
            actual = before - _flat(problem.params)
            cosine = float(actual @ exact / (actual.norm() * exact.norm()))
            agreements["early" if step <= 160 else "late"].append(
                (cosine, float(actual.norm() / exact.norm()))
            )
    return {
        when: [round(float(value), 4) for value in np.mean(pairs, 0)]
        for when, pairs in agreements.items()
    }


def _result(losses: list[float], seen: dict[str, float]) -> dict[str, Any]:
    return {
        "losses": [float(f"{loss:.5g}") for loss in losses],
        "longest": round(seen["longest"], 3),
        "allowed": round(seen["allowed"], 3),
        "seconds": round(seen["seconds"], 4),
    }


def allowed(optimizer: CGD) -> float:
    """What no step over lr may exceed: max(3 sqrt(n), B sqrt(blocks)), all being in one group."""
    (group,), params = optimizer.param_groups, _parameters(optimizer)
    blocks = sum(p.numel() for p in params) if group["metric"] == "diagonal" else 1
    if group["metric"] == "block":
        rows = group["blocks"] == "row"
        blocks = sum(p.shape[0] if rows and p.ndim else 1 for p in params)
    bound = longest(group["tau1"], group["tau2"], 0)
    return max(3 * math.sqrt(sum(p.numel() for p in params)), bound * math.sqrt(blocks))


def main() -> None:
    """Compute what is missing, then print and write the page."""
    parser = figure_parser(__doc__, out=Path("docs"), seeds=8)
    parser.add_argument(
        "--without-ppo", action="store_true", help="leave out reinforcement learning"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    store = args.out / "results" / "descent-refresh.json"
    results: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for name in SETTINGS if args.without_ppo else (*SETTINGS, PPO_NAME):
        for metric in METRICS:
            if name == "Rosenbrock" and metric not in ("full", "lowrank"):
                continue  # one tensor of two parameters: block is full, and rows are diagonal
            for refresh in REFRESHES if metric != "lowrank" else (1,):
                results[name, metric, refresh] = recorded(
                    store,
                    f"{name}, {metric}, refresh {refresh}, {args.seeds} seeds",
                    partial(runs_of, name, metric, refresh, args.seeds),
                )
                print(name, metric, refresh, _row(results, name, metric, refresh), flush=True)
    agreements = recorded(
        store,
        f"agreement, {args.seeds} seeds",
        lambda: [agreement(seed) for seed in range(args.seeds)],
    )
    page = _page(results, agreements)
    print(page)
    write_text(args.out / "descent-refresh.md", page)


def ratio(runs: list[dict[str, Any]], fresh: list[dict[str, Any]], moment: int = -1) -> float:
    """Geometric mean over seeds of the loss over that at refresh 1, after the same steps."""
    logs = [
        math.log(a["losses"][moment] / b["losses"][moment])
        for a, b in zip(runs, fresh, strict=True)
    ]
    return math.exp(float(np.mean(logs)))


def _row(results: Any, name: str, metric: str, refresh: int) -> list[str]:
    """Cells: longest step, what is allowed, loss at the end and its ratios, CPU time."""
    runs, fresh = results[name, metric, refresh], results[name, metric, 1]
    logs = [math.log(a["losses"][-1] / b["losses"][-1]) for a, b in zip(runs, fresh, strict=True)]
    error = 1.96 * float(np.std(logs, ddof=1)) / math.sqrt(len(logs)) if len(logs) > 1 else 0.0
    ends = "" if refresh == 1 else f"{ratio(runs, fresh):.2f} x/÷ {math.exp(error):.2f}"
    first = "" if refresh == 1 else f"{ratio(runs, fresh, 1):.2f}"
    loss = math.exp(float(np.mean([math.log(run["losses"][-1]) for run in runs])))
    far = max(run["longest"] for run in runs)
    return [
        f"{far:.1f}",
        f"{runs[0]['allowed']:.1f}",
        f"{loss:.3g}",
        first,
        ends,
        f"{_times(results, name, metric, refresh):.2f}",
    ]


def _page(
    results: dict[tuple[str, str, int], list[dict[str, Any]]],
    agreements: list[dict[str, list[float]]],
) -> str:
    names = list(dict.fromkeys(name for name, _, _ in results))
    heads = ["metric", "refresh", "longest step / lr", "allowed", "last loss"]
    heads += ["loss ratio, first quarter", "loss ratio, end", "CPU time ratio"]
    sections = []
    for name in names:
        rows = [
            [metric, n, *_row(results, of, metric, n)] for of, metric, n in results if of == name
        ]
        title = f"{name[0].upper()}{name[1:]}"
        sections.append(f"## {title}\n\n{_description(name)}\n\n{table(heads, rows)}")
    share = max(run["longest"] / run["allowed"] for runs in results.values() for run in runs)
    spans = []
    for name in names:
        ends = [
            ratio(runs, results[of, metric, 1])
            for (of, metric, n), runs in results.items()
            if of == name and n == 10
        ]
        spans.append(f"{name} {min(ends):.2f} to {max(ends):.2f}")
    times = {
        n: [_times(results, *key) for key in results if key[2] == n and key[1] != "lowrank"]
        for n in REFRESHES[1:]
    }
    body = "\n".join(sections)
    worst = max(
        ratio(runs, results[of, metric, 1]) for (of, metric, n), runs in results.items() if n == 10
    )
    early, late = (
        np.mean([cosines[when] for cosines in agreements], 0) for when in ("early", "late")
    )
    title = (
        f"Kept eigenvectors halve the time of a step, for a loss at most {worst:.1f} times as high"
    )
    return f"""# {title}

Dense metrics of `CGD` decompose a second moment. With `refresh` above 1 they keep its eigenvectors
for up to that many steps and go on averaging the power along them
([why](optimizer-derived.md)). Here every run is made at refresh {", ".join(map(str, REFRESHES))}
from the same start with the same batches, over {len(agreements)} seeds, at tau1 {TAU1:g} and tau2
{TAU2:g}; all else is at the defaults, learning rates are not tuned. At a tau2 of 99, 100 would be
10: a basis is renewed when a tenth of the second moment is new.

- **Steps:** the longest is {share:.2f} of what is allowed, max(3 sqrt(n), B sqrt(blocks)) times lr.
- **Losses** at refresh 10 over those at refresh 1 after the same steps, lowest and highest of the
  metrics:
{chr(10).join(f"  - {span}" for span in spans)}
- **CPU time** of the steps, over that at refresh 1: {min(times[10]):.2f} to {max(times[10]):.2f} at
  refresh 10, {min(times[100]):.2f} to {max(times[100]):.2f} at refresh 100.

With noisy gradients no metric loses by kept eigenvectors (steps are longer, and learning rates are
not tuned here: what it gains is no merit). Late in learning from all data at once full
and block metrics end above refresh 1, by more than chance only the block metric; early in the
same runs they are ahead. Directions that were apart when a basis was found become correlated within
the steps for which it is kept, and the power along each of them does not say so: in learning from
all data, just before a renewal, the step of the full metric has a cosine of {early[0]:.2f} with
that of the metric of now up to step 160 and is {early[1]:.1f} times as long; afterwards the figures
are {late[0]:.2f} and {late[1]:.2f}. If the last digits matter and gradients are exact, take
refresh 1, or L-BFGS.

So the defaults stay: 1 for `CGD`, which is the formula itself, and 10 for `train`. Refresh 100
saves little more time.

"loss ratio": geometric mean over seeds with its 95 % interval as a factor. "lowrank" decomposes its
small matrix at every step, whatever `refresh` is. CPU time is that of the steps alone, on a busy
machine.

{body}
To reproduce: `python -m invariantzoo.figures.descent_refresh`.
"""


def _description(name: str) -> str:
    """A line about a problem."""
    if name == PPO_NAME:
        return f"{PPO_UPDATES} updates, networks of width {PPO['width']}, loss per agent and step."
    setting = SETTINGS[name]
    return f"{setting.description}; {setting.steps} steps, lr {setting.lr:g}."


def _times(results: Any, name: str, metric: str, refresh: int) -> float:
    """CPU seconds of the steps over those at refresh 1."""
    runs, fresh = results[name, metric, refresh], results[name, metric, 1]
    return float(sum(run["seconds"] for run in runs) / sum(run["seconds"] for run in fresh))


def _flat(params: list[nn.Parameter]) -> Tensor:
    return torch.cat([p.detach().flatten() for p in params]).double()


def _parameters(optimizer: Any) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _learning(net: nn.Module, loss: Callable[[Any], Tensor], rows: Callable[[], Any]) -> Problem:
    """A network that learns from rows of its data; reported is the loss on all of them."""

    def backward(_: int) -> None:
        net.zero_grad()
        loss(rows()).backward()

    def value() -> float:
        with torch.no_grad():
            return float(loss(slice(None)))

    return Problem(list(net.parameters()), backward, value)


def _rows(n: int, batch: int, generator: torch.Generator) -> Any:
    return torch.randint(0, n, (batch,), generator=generator) if batch else slice(None)


@functools.cache
def _digits() -> tuple[Tensor, Tensor]:
    """Pixels [1797, 16] from -1 to 1, means of squares of four, and labels."""
    from sklearn.datasets import load_digits

    images: Any = load_digits()
    pixels = torch.from_numpy(images.images).float().view(-1, 4, 2, 4, 2).mean((2, 4))
    return pixels.flatten(1) / 8 - 1, torch.from_numpy(images.target).long()


def _network(sizes: tuple[int, int, int], generator: torch.Generator) -> nn.Sequential:
    """Two layers with tanh between them, drawn from [-1/2, 1/2]."""
    net = nn.Sequential(nn.Linear(*sizes[:2]), nn.Tanh(), nn.Linear(*sizes[1:]))
    with torch.no_grad():
        for p in net.parameters():
            p.uniform_(-0.5, 0.5, generator=generator)
    return net


if __name__ == "__main__":
    main()
