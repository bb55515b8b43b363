"""Exponents of sample gradients: nets that learned digits, one made to have a law, runs of PPO.

    python -m invariantzoo.figures.criticality [--out docs]

Digits and tumours are those of scikit-learn. Writes does-criticality-emerge.md, its picture and
json; networks that are in the json are not trained again.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from invariantzoo.report import (
    figure_parser,
    page_figure,
    page_legend,
    recorded,
    save_figure,
    table,
    write_text,
)

SEEDS = (0, 1, 2, 3, 4)
MOST = 200_000  # gradients of a layer's weights that are judged, of parameters drawn at random
PPO = ("particles-crowd-v0", 1_000_000, 4096)  # id, agent-steps, samples that are judged
PARTS = ("hidden bias", "hidden weight", "output bias", "output weight")


class Net(NamedTuple):
    """A network, its loss, and how it is trained."""

    activation: str
    loss: str  # "CE" of logits, or "MSE" of an output behind the activation
    kind: str = "MLP"
    width: int = 32
    steps: int = 1200
    decay: float = 1e-4
    data: str = "digits"

    @property
    def name(self) -> str:
        """What tables call it."""
        usual = Net(self.activation, self.loss)
        other = [f"{self.kind}"] if self.kind != usual.kind else []
        other += [f"{self.width} wide"] if self.width != usual.width else []
        other += [f"{self.steps} steps"] if self.steps != usual.steps else []
        other += ["no decay"] if self.decay != usual.decay else []
        other += [self.data] if self.data != usual.data else []
        return ", ".join([f"{self.activation} {self.loss}", *other])


GRID = (
    *(Net(a, of) for of in ("CE", "MSE") for a in ("sigmoid", "tanh", "softsign")),
    Net("ReLU", "CE"),
    Net("tanh", "CE", kind="convolution"),
    Net("softsign", "MSE", kind="convolution"),
)
BASES = (Net("tanh", "CE"), Net("softsign", "MSE"))
VARIED = tuple(
    net._replace(**change)
    for net in BASES
    for change in ({"steps": 2400}, {"steps": 12_000}, {"decay": 0.0}, {"width": 128})
)
OTHER_DATA = tuple(
    net._replace(data=data) for net in BASES for data in ("breast cancer", "clusters")
)


def main() -> None:
    """Train what is missing, then print and write the page."""
    import torch

    args = figure_parser(__doc__, out=Path("docs")).parse_args()
    torch.set_num_threads(1)
    store = args.out / "results" / "criticality.json"
    results = {
        net: [recorded(store, f"{net.name}, seed {s}", partial(learned, net, s)) for s in SEEDS]
        for net in (*GRID, *VARIED, *OTHER_DATA)
    }
    made = [recorded(store, f"made, seed {s}", partial(made_for_it, s)) for s in SEEDS]
    ppo = [
        recorded(store, f"{' '.join(map(str, PPO))}, seed {s}", partial(of_ppo, s)) for s in SEEDS
    ]
    _picture(args.out / "images" / "does-criticality-emerge.png", results, made)
    page = _page(results, made, ppo)
    print(page)
    write_text(args.out / "does-criticality-emerge.md", page)


def learned(net: Net, seed: int) -> dict[str, Any]:
    """Accuracy, size of the mean gradient, and verdicts on all layers of a trained network."""
    import torch

    from invariantzoo.training.geometry.regimes import sample_gradients

    x, label = (torch.from_numpy(array) for array in _data(net.data))
    classes = int(label.max()) + 1
    network, loss = _network(net, seed, x.shape[1], classes), _loss(net, classes)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, net.steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(net.steps):
        chosen = torch.randint(len(x), (128,), generator=generator)
        value = loss(network(x[chosen]), label[chosen])
        value = value + 0.5 * net.decay * sum(p.square().sum() for p in network.parameters())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        falling.step()
    right = float((network(x).argmax(1) == label).double().mean())
    rows = sample_gradients(network, loss, x, label)
    still = float(rows.mean(0).abs().mean() / rows.abs().mean())
    return {"accuracy": right, "still": still, **_verdicts(network, rows, seed)}


def made_for_it(seed: int) -> dict[str, Any]:
    """The same of a softsign layer that sees |x| up to 1e5, equally often at every size."""
    import torch
    from torch import nn

    from invariantzoo.training.geometry.regimes import sample_gradients
    from invariantzoo.training.geometry.statistics import seeded

    def make() -> nn.Sequential:
        return nn.Sequential(nn.Linear(2, 4), nn.Softsign(), nn.Linear(4, 1)).double()

    network, generator = seeded(make, seed), torch.Generator().manual_seed(seed)
    sign = 1.0 - 2.0 * (torch.arange(200_000) % 2)
    size = 1e5 * torch.rand(len(sign), generator=generator, dtype=torch.float64)
    x = (sign * size)[:, None] * torch.tensor([1.0, 0.5], dtype=torch.float64)
    y = sign.double()

    def loss(output: Any, target: Any) -> Any:
        return nn.functional.softplus(-target * output[:, 0]).mean()

    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(300):
        chosen = torch.randint(len(x), (1000,), generator=generator)
        value = loss(network(x[chosen]), y[chosen])
        value = value + 0.005 * sum(p.square().sum() for p in network.parameters())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    right = float((network(x)[:, 0] * y > 0).double().mean())
    rows = sample_gradients(network, loss, x, y)
    return {"accuracy": right, **_verdicts(network, rows, seed)}


def of_ppo(seed: int) -> dict[str, Any]:
    """Verdicts on all parts of a policy that PPO trained, from the updates that would follow."""
    import invariantzoo
    from invariantzoo.training.geometry.criticality import SampleRecorder
    from invariantzoo.training.rl.algorithms import make_config, make_trainer

    id, steps, samples = PPO
    system = invariantzoo.make_system(id)
    trainer: Any = make_trainer("ppo", system, make_config(id, "ppo", {}), seed=seed, steps=steps)
    for _ in trainer:
        pass
    trainer.total = 2 * steps
    recorder = SampleRecorder(samples).attach(trainer.model.policy)
    for _ in trainer:
        if len(recorder) >= samples:
            break
    return {part: _entry(verdict) for part, verdict in recorder.verdicts().items()}


def _data(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs [samples, d] and classes [samples], whole numbers."""
    from sklearn.datasets import load_breast_cancer, load_digits

    if name == "digits":
        digits = load_digits()
        return digits.data / 16.0, digits.target.astype(np.int64)
    if name == "breast cancer":
        tumours = load_breast_cancer()
        spread = tumours.data.std(0)
        return (tumours.data - tumours.data.mean(0)) / spread, tumours.target.astype(np.int64)
    rng = np.random.default_rng(0)
    centre, label = rng.normal(size=(10, 64)), np.arange(5000) % 10
    return 0.3 * (centre[label] + 1.2 * rng.normal(size=(5000, 64))), label


def _network(net: Net, seed: int, inputs: int, classes: int) -> Any:
    from torch import nn

    from invariantzoo.training.geometry.statistics import seeded

    of = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "softsign": nn.Softsign, "ReLU": nn.ReLU}
    activation = of[net.activation]

    def make() -> nn.Sequential:
        if net.kind == "convolution":
            layers = [nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3), activation(), nn.Flatten()]
            layers.append(nn.Linear(8 * 36, classes))
        else:
            layers = [nn.Linear(inputs, net.width), activation(), nn.Linear(net.width, classes)]
        return nn.Sequential(*layers, *([activation()] if net.loss == "MSE" else [])).double()

    return seeded(make, seed)


def _loss(net: Net, classes: int) -> Any:
    import torch
    from torch.nn.functional import cross_entropy

    goals = torch.eye(classes, dtype=torch.float64)
    if net.activation != "sigmoid":
        goals = 2 * goals - 1

    def squares(output: Any, label: Any) -> Any:
        return 0.5 * (output - goals[label]).square().sum(1).mean()

    return cross_entropy if net.loss == "CE" else squares


def _verdicts(network: Any, rows: Any, seed: int) -> dict[str, Any]:
    """Of hidden and output layer, weights and biases: exponent, distance, verdict, by decade."""
    import torch

    from invariantzoo.training.geometry.criticality import judge

    sizes = [p.numel() for p in network.parameters()]
    names = ("hidden weight", "hidden bias", "output weight", "output bias")
    generator = torch.Generator().manual_seed(seed)
    verdicts = {}
    for name, part in zip(names, rows.abs().split(sizes, 1), strict=True):
        if part.numel() > MOST:  # those of some parameters
            chosen = torch.randperm(part.shape[1], generator=generator)[: MOST // len(part)]
            part = part[:, chosen]
        verdicts[name] = _entry(judge(part))
    return verdicts


def _entry(verdict: Any) -> dict[str, Any]:
    """What the json has of a verdict."""
    law = verdict.law
    return {
        "k": math.nan if law is None else law.exponent,
        "ks": math.nan if law is None else law.ks * math.sqrt(law.n),
        "bound": math.nan if law is None else law.bound * math.sqrt(law.n),
        "law": law is not None and law.is_power_law,
        "running": [round(k, 4) for k in verdict.running],
    }


def _row(name: str, part: str, runs: list[dict[str, Any]]) -> list[str]:
    k = np.array([run[part]["k"] for run in runs])
    known = np.ma.masked_invalid([run[part]["running"] for run in runs])
    running = known.mean(0).filled(math.nan)
    laws = sum(run[part]["law"] for run in runs)
    ks, bound = (float(np.nanmedian([run[part][of] for run in runs])) for of in ("ks", "bound"))
    decades = " ".join(f"{value:.2f}" for value in running)
    spread = f"{np.nanmean(k):.2f} ± {np.nanstd(k, ddof=1):.2f}"
    return [name, part, spread, decades, f"{ks:.1f}", f"{bound:.1f}", f"{laws} of {len(runs)}"]


def _page(
    results: dict[Net, list[dict[str, Any]]], made: list[dict[str, Any]], ppo: list[dict[str, Any]]
) -> str:
    heads = [
        "network",
        "gradients of",
        "k",
        "k by decade, from the top down",
        "KS √n",
        "by chance",
        "power law",
    ]
    grid = [_row(net.name, part, results[net]) for net in GRID for part in PARTS]
    varied = [_row(net.name, part, results[net]) for net in VARIED for part in PARTS]
    other = [_row(net.name, part, results[net]) for net in OTHER_DATA for part in PARTS]
    by_ppo = [
        _row("PPO", f"`{part}`", [{f"`{part}`": run[part]} for run in ppo]) for part in ppo[0]
    ]
    laws_of_ppo = sum(part["law"] for run in ppo for part in run.values())
    own = [_row("made for it", part, made) for part in ("hidden bias", "hidden weight")]
    fits, laws = _counted(results, tuple(results))
    more, laws_of_more = _counted(results, VARIED)
    others, laws_of_others = _counted(results, OTHER_DATA)
    passing = [
        f"{net.name}, {part} ({n} of {len(results[net])}, k = {k:.2f})"
        for net in results
        for part in PARTS
        for n, k in [_passing(results[net], part)]
        if n
    ]
    least = min(run["accuracy"] for runs in results.values() for run in runs)
    few = np.mean([of["hidden bias"]["running"] for of in results[OTHER_DATA[0]]], 0)
    answer = "Hardly ever" if laws else "No"
    bias = [run["hidden bias"] for run in made]
    straight = np.mean([run["hidden bias"]["running"] for run in results[Net("tanh", "CE")]], 0)
    return f"""# Does criticality emerge? {answer}, in networks that learned digits

![exponents by decade](images/does-criticality-emerge.png)

A power law P(q) ~ q^-k is a straight line at the height k in this picture: the exponent of the
gradients of single samples (hidden biases), decade by decade below their 99.9 % quantile, each line
the mean of five seeds. Networks that learned digits bend; the one made for it (thick) does not.

- **Verdict.** Of {fits} fits ({len(results)} networks, five seeds, four kinds of gradients) {laws}
  pass as power laws: exponents of three decades within 0.1 and a distance of Kolmogorov and Smirnov
  (KS √n) that chance explains: 1.4 or, as sizes of a sample go together, more. All networks reach
  an accuracy of {least:.3f} or more.
- **Those that pass:** {"; ".join(passing) or "none"}.
  A flat density of z would give 1 there.
- **More of everything.** Twice and ten times the training, no weight decay, and four times the
  width: {laws_of_more} of {more} fits pass.
- **Other data.** Tumours of breasts and clusters of Gaussian noise: {laws_of_others} of {others}
  fits pass. There are fewest tumours, and the fewer samples, the less a test can tell a bend from a
  line: hidden biases of tanh CE have {few[0]:.2f} in the decade above the window.
- **Runs of PPO.** Five trainings of `{PPO[0]}`, {PPO[1]:,} agent-steps each:
  {laws_of_ppo} of {len(ppo) * len(ppo[0])} fits pass.
- **What would be needed.** An activation whose slope falls as a power, and a z that reaches far
  into that tail with a flat density. With both, the law appears: a softsign layer that sees inputs
  of all sizes up to 1e5, equally often, has f'(z) = (1 + |z|)^-2, hence k = 3/2 for its biases;
  {np.mean([of["k"] for of in bias]):.3f} is found, and passes in
  {sum(of["law"] for of in bias)} of {len(bias)} seeds.
- **How to fool oneself.** Over two decades a bump looks straight: the hidden biases of tanh CE have
  {straight[1]:.2f} and {straight[2]:.2f} in the second and the third, but {straight[0]:.2f} and
  {straight[-1]:.2f} in the first and the fifth.

## Digits

MLPs are 64-32-10, convolutions 8 filters of 3 x 3 and a linear layer; 1,797 samples, Adam, 1,200
batches of 128, rate 0.01 falling to 0, weight decay 1e-4. MSE is that of an output behind the
same activation. The fit is on three decades that end a decade below the 99.9 % quantile; ± is
the standard deviation over seeds.

{table(heads, grid)}
## More of everything

{table(heads, varied)}
## Other data

Tumours (569 of them, 30 measurements with mean 0 and standard deviation 1, two classes) are those
of scikit-learn; the clusters are 5,000 samples around 10 centres in 64 dimensions. The rest is as
above.

{table(heads, other)}
## Runs of PPO

`invariantzoo train {PPO[0]} --algo ppo --steps {PPO[1]} --seed K`, K from 0 to 4, and
then `invariantzoo criticality RUN`: {PPO[2]:,} samples of the updates that would follow.

{table(heads, by_ppo)}
## Made for it

2-4-1, softsign, cross-entropy; 200,000 samples.

{table(heads, own)}
The instruments are those of [Power laws judged honestly](criticality.md), where the smallest case
in which a power law does emerge is solved exactly.

To reproduce: `python -m invariantzoo.figures.criticality`.
"""


def _counted(results: dict[Net, list[dict[str, Any]]], nets: tuple[Net, ...]) -> tuple[int, int]:
    """Fits of networks, and how many of them pass as power laws."""
    passed = [run[part]["law"] for net in nets for run in results[net] for part in PARTS]
    return len(passed), sum(passed)


def _passing(runs: list[dict[str, Any]], part: str) -> tuple[int, float]:
    """How many seeds pass, and their mean exponent."""
    k = [run[part]["k"] for run in runs if run[part]["law"]]
    return len(k), float(np.mean(k)) if k else math.nan


def _picture(path: Path, results: dict[Net, list[dict[str, Any]]], made: list[Any]) -> None:
    """Exponents of hidden biases by decade."""
    figure, axes = page_figure(1, 1, 3.8)
    axis = axes[0, 0]
    for k, net in enumerate(GRID):
        rows = np.array([run["hidden bias"]["running"] for run in results[net]])
        looks = {"ls": "--" if net.loss == "MSE" else "-", "color": f"C{k}", "lw": 1.2}
        axis.plot(range(1, rows.shape[1] + 1), np.nanmean(rows, 0), label=net.name, **looks)
    rows = np.array([run["hidden bias"]["running"] for run in made])
    axis.plot(range(1, rows.shape[1] + 1), rows.mean(0), "k-o", lw=2, label="made for it")
    axis.axhline(1.5, color="0.7", lw=0.8)
    axis.set(xlabel="decade below the 99.9 % quantile", ylabel="exponent k there")
    axis.set_xticks(range(1, rows.shape[1] + 1))
    page_legend(figure, 3, axis)
    save_figure(figure, path)


if __name__ == "__main__":
    main()
