"""Links steer a Dirac packet: optimal control, and one local policy that is trained through it.

    python -m invariantzoo.figures.dirac_steer [--out docs] [--seeds 5]

The policy is one small network that every link asks with its own gauge invariants. It is trained by
descent of the infidelity through the walk, on batches of the three tasks and random ones, with a
learning rate that falls to 0, and judged with the average of its weights over the last quarter.
Optimal control, which knows the whole field, stands beside it. Writes dirac-steer.md and
results/dirac-steer.json; what is done is not done again.
"""

from __future__ import annotations

import copy
import math
import time
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import invariantzoo
from invariantzoo.report import figure_parser, recorded, table, write_text

if TYPE_CHECKING:
    from torch import Tensor, nn

    from invariantzoo.envs.dirac.state import SteerState
    from invariantzoo.envs.dirac.steer import DiracSteer

ID = "dirac-steer-v0"
TASKS = ("stop", "turn", "carry")
POLICIES = ("none", "constant", "uniform", "grape")
WIDTH, RATE, BATCH, UPDATES = 24, 5e-3, 12, 300
WINDOW = 48  # links around the packet that act in training
HELD_OUT = 64  # random tasks on which the policy is judged as well
TEXT = """# One local policy steers a Dirac packet, beside optimal control

A packet of a Dirac field on a ring of 96 sites has 48 steps to become another one, 20 sites on and
at rest ("stop"), 10 sites on and moving back ("turn"), or 36 sites on and moving as before, 4 less
than it would drift ("carry"). Every link may add up to 0.1 radians per step to its gauge field.
The number is the fidelity |<target|psi>|^2 at the end, in the gauge of who stands at the target.

![Optimal control turns a packet](images/dirac-steer-v0.gif)

{controls}
`constant` is one field for all links and steps, `uniform` one per step, `grape` one per link and
step, each found by L-BFGS-B with the exact gradient for the task at hand; the last is a local
optimum, hence a lower bound of the best. CPU seconds are of the longest of the three tasks on
a shared core; each policy starts from the one above it, and that is counted.

{seeds} networks of two hidden layers of {width}, trained by descent through the walk, one for all
tasks: a link sees density, current, coherence and phase of the field at its two ends, all gauge
invariant, how far the target is, its wave number, and the time left. Every batch holds the three
tasks and {drawn} random ones. Mean and standard deviation are over training seeds; the row "random"
is of {held_out} tasks that no training has seen.

{learned}
Each was trained for {updates} updates of {batch} episodes ({seconds:.0f} CPU seconds) by Adam,
whose rate falls from {rate} to 0 along a cosine; weights are averaged over the last quarter.

{verdict}
Made by `python -m invariantzoo.figures.dirac_steer`.
"""


def main() -> None:
    """Control, train, judge, write."""
    import torch

    args = figure_parser(__doc__, out=Path("docs"), seeds=5).parse_args()
    torch.set_num_threads(1)
    store = args.out / "results" / "dirac-steer.json"
    controls = {
        policy: recorded(store, f"control {policy}", partial(controlled, policy))
        for policy in POLICIES
    }
    runs = []
    for seed in range(args.seeds):
        runs.append(recorded(store, f"network {seed}", partial(judged, seed)))
        print(seed, runs[-1]["fidelity"], flush=True)
    page = _page(controls, runs)
    print(page)
    write_text(args.out / "dirac-steer.md", page)


def _page(controls: dict[str, Any], runs: list[dict[str, Any]]) -> str:
    rows = [
        [name, *(f"{scores[task]['fidelity']:.4f}" for task in TASKS), _seconds(scores)]
        for name, scores in controls.items()
    ]
    columns = {name: [run["fidelity"][name] for run in runs] for name in (*TASKS, "random")}
    learned = [
        [name, f"{mean(values):.4f}", f"{stdev(values):.4f}", f"{min(values):.4f}"]
        for name, values in columns.items()
    ]
    better = [task for task in TASKS if mean(columns[task]) > controls["uniform"][task]["fidelity"]]
    verdict = (
        f"On average the networks beat the uniform field found for the task in: "
        f"{', '.join(better) or 'none'}.\nOptimal control is ahead of them by "
        + ", ".join(
            f"{controls['grape'][task]['fidelity'] - mean(columns[task]):.4f} ({task})"
            for task in TASKS
        )
        + ".\n"
    )
    return TEXT.format(
        controls=table(["policy", *TASKS, "CPU seconds"], rows),
        learned=table(["task", "mean", "standard deviation", "worst seed"], learned),
        seeds=len(runs),
        width=WIDTH,
        held_out=HELD_OUT,
        drawn=BATCH - len(TASKS),
        updates=UPDATES,
        batch=BATCH,
        rate=RATE,
        seconds=mean([run["cpu_seconds"] for run in runs]),
        verdict=verdict,
    )


def _seconds(scores: dict[str, Any]) -> str:
    return f"{max(scores[task]['cpu_seconds'] for task in TASKS):.2g}"


def controlled(policy: str) -> dict[str, dict[str, float]]:
    """Fidelity, norm error and CPU time of one of the system's own policies on every task."""
    from invariantzoo import Rng

    scores = {}
    for task in TASKS:
        system: Any = invariantzoo.make_system(ID, task=task)
        state = system.initial(Rng.single(0, 1), 1)
        system.rollout(state, "none", 1, Rng.single(0, 1), 1)  # compiled
        begun = time.process_time()
        _, records = system.rollout(state, policy, system.horizon, Rng.single(0, 1), system.horizon)
        seconds = time.process_time() - begun
        values = {name: float(records[name][0, 0]) for name in ("fidelity", "norm_error")}
        scores[task] = {**values, "cpu_seconds": seconds}
    return scores


def judged(seed: int) -> dict[str, Any]:
    """A network trained from a seed: its fidelity on every task, losses on the way, its weights."""
    from invariantzoo.agents.policy import network_policy
    from invariantzoo.training.rl.score import evaluate

    begun = time.process_time()
    network, losses = trained(seed, UPDATES)
    seconds, policy = time.process_time() - begun, network_policy(network)
    fidelity = {}
    for task in (*TASKS, "random"):
        system: Any = invariantzoo.make_system(ID, task=task)
        episodes = HELD_OUT if task == "random" else 1
        scores = evaluate(system, policy, episodes=episodes, seeds=1, deterministic=True)
        fidelity[task] = float(scores["fidelity"].mean())
    every = losses[:: max(1, len(losses) // 30)]
    return {
        "fidelity": fidelity,
        "cpu_seconds": seconds,
        "losses": [round(loss, 4) for loss in every],
        "updates": len(losses),
    }


def trained(seed: int, updates: int, watch: Any = print) -> tuple[nn.Module, list[float]]:
    """A network trained from a seed, averaged over its last quarter, and losses on the way."""
    import torch

    from invariantzoo.agents.networks.choose import make_network

    system: Any = invariantzoo.make_system(ID, task="random")
    network = make_network("mlp", system, seed, width=WIDTH)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    average, counted, losses = copy.deepcopy(network), 0, []
    for update in range(updates):
        for group in optimizer.param_groups:
            group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * update / updates))
        loss = episode_loss(system, network, batch(system, seed, update))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        if update >= 0.75 * updates:
            counted += 1
            with torch.no_grad():
                for averaged, now in zip(average.parameters(), network.parameters(), strict=True):
                    averaged.add_((now - averaged) / counted)
        if update % 25 == 24:
            watch(f"seed {seed}, update {update + 1}: loss {sum(losses[-25:]) / 25:.4f}")
    return average, losses


def batch(system: DiracSteer, seed: int, update: int) -> SteerState:
    """The three tasks and random ones."""
    import torch

    from invariantzoo.envs.core.rng import INITIAL, Rng

    drawn = BATCH - len(TASKS)
    world = torch.arange(update * drawn, (update + 1) * drawn)
    states = [system.initial(Rng(seed, world, torch.zeros_like(world), INITIAL), drawn)]
    for task in TASKS:
        fixed: Any = invariantzoo.make_system(ID, task=task)
        states.append(fixed.initial(Rng.single(0, 1), 1))
    return type(states[0])(*map(torch.cat, zip(*states, strict=True)))


def episode_loss(system: DiracSteer, network: nn.Module, state: SteerState) -> Tensor:
    """Mean loss of an episode; links far from the packet, where the field is 0, do not act."""
    import torch

    from invariantzoo.envs.core.observation import flatten
    from invariantzoo.envs.dirac.descent import differentiable_step

    n, effort = system.n_agents, torch.zeros(())
    angle = 2 * math.pi * torch.arange(n) / n
    seen = flatten(system, system.invariants(state))
    for _ in range(system.horizon):
        with torch.no_grad():
            density = seen[..., 0]
            middle = torch.atan2(density @ angle.sin().double(), density @ angle.cos().double())
            first = (middle * n / (2 * math.pi)).round().long() - WINDOW // 2
            near = ((first[:, None] + torch.arange(WINDOW)) % n).unsqueeze(-1)
        asked = seen.float().gather(1, near.expand(-1, -1, seen.shape[-1]))
        chosen = network(asked).clamp(-1, 1)
        effort = effort + (chosen**2).sum(1).mean() / n
        action = torch.zeros(len(near), n, 1).scatter(1, near, chosen)
        state, seen = differentiable_step(system, state, action.double())
    return 1 - system.fidelity(state).mean() + system.effort / system.horizon * effort


if __name__ == "__main__":
    main()
