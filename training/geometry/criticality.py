"""Do gradients of single samples follow power laws? Layer by layer, weights and biases apart.

While a network learns, whatever the algorithm, a recorder keeps for every linear layer z = W x + b
and every convolution what each sample's loss gives back to it, s = dL / dz, and its input x: the
gradients of that sample are s for the bias and s x^T for the weights, summed over neighbours or
places where a layer is applied to several; a sample is a row of what the network is given. Their
sizes are judged by `fit_power_law` on three decades that end a decade below their 99.9 % quantile,
and told by decade from that quantile down.

Coupling: a hidden bias gradient is the back-signal dL / df times f'(z). If the two were independent
the exponent of their product would not change when one is shuffled against the other.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.optim import Optimizer

from ...agents.networks.neighbours import PairNetwork
from ...envs.core.validation import require_count
from .power_law import FEWEST, PowerLaw, fit_power_law, in_groups, running_exponents, top_window

TIED = "of weights that layers share"
DECADES = 5  # below the top for which exponents are told
_BELOW, _WIDTH = 1, 3  # decades: of the window's end below the top, and of the window
_MOST = 200_000  # sizes of weight gradients of a layer that are kept
_LAYERS = (nn.Linear, _ConvNd)
_ACTIVATIONS = (  # that act on every number alone, without chance
    *(nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Tanh, nn.Sigmoid, nn.Softsign, nn.Softplus, nn.Hardtanh, nn.Identity),
)


class Verdict(NamedTuple):
    """Of the gradients of a layer's weights or biases.

    law: the fit, or None where too few samples are on the window.  running: exponents by decade
    from the 99.9 % quantile down, the highest decade first.  coupling: by how much the exponent
    changes if back-signal and f' are shuffled against each other; NaN where that is not known.
    sizes [n]: those that were judged.
    """

    law: PowerLaw | None
    running: tuple[float, ...]
    coupling: float
    sizes: Tensor

    @property
    def text(self) -> str:
        """The verdict in words."""
        return "too few samples" if self.law is None else self.law.verdict


class _Signal(NamedTuple):
    """Of one use of a layer: input and dL / dz, or dL / df and the slope of the activation."""

    backward_pass: int
    is_slope: bool
    first: Tensor
    second: Tensor


class SampleRecorder:
    """Gradients of single samples in the linear layers of a network, as it learns.

    window: samples that are kept of each layer, the latest.  While `paused` nothing is kept.
    most: about how many sizes of gradients a verdict judges, of samples at equal distances; None:
        all of biases and 200,000 of weights.
    once: whether it pauses itself as soon as every layer has its window, which are then the first
        samples, not the latest.
    """

    def __init__(self, window: int = 4096, most: int | None = None, once: bool = False) -> None:
        require_count("window", window, FEWEST)
        if most is not None:
            require_count("most", most, FEWEST)
        self.window, self.most, self.once = window, most, once
        self.paused = False
        self._signals: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._slopes: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._pending: dict[str, list[_Signal]] = {}
        self._handles: list[Any] = []
        self._skipped: list[PairNetwork] = []
        self._layers: dict[str, nn.Module] = {}
        self._owners: dict[str, Optimizer] = {}
        self._trained: dict[str, nn.Parameter] = {}
        self._tied: set[nn.Parameter] = set()
        self._refused: dict[str, str] = {}
        self._uses: dict[str, set[tuple[int, int]]] = {}
        self._call = 0

    def attach(self, network: nn.Module, *optimizers: Optimizer) -> SampleRecorder:
        """Watch linear layers and convolutions, and the activations behind them; returns itself.

        optimizers: those of the network, beside the ones that it has as attributes. A layer that
        none of them owns is taken at its word, with every backward pass.
        Raises ValueError for batch normalisation, which mixes the samples of a batch.
        """
        require_samples_apart(network)
        for module in network.modules():
            if isinstance(module, PairNetwork) and module.skip_empty:
                module.skip_empty = False  # its layers are to see whole samples
                self._skipped.append(module)
        owners = _owners((*_optimizers(network), *optimizers))
        named = dict(network.named_parameters())
        self._trained = {
            name: p for name, p in named.items() if p.requires_grad and (not owners or p in owners)
        }
        self._tied = _tied(network)
        modules = dict(network.named_modules())
        self._layers = {name: m for name, m in modules.items() if isinstance(m, _LAYERS)}
        self._handles.append(network.register_forward_pre_hook(self._count))
        for name, layer in self._layers.items():
            own = list(layer.parameters(recurse=False))
            if not self._tied.isdisjoint(own):
                self._refused[name] = TIED
                continue
            if owner := next((owners[p] for p in own if p in owners), None):
                self._owners[name] = owner
            self._handles.append(layer.register_forward_hook(self._watch(name), with_kwargs=True))
        for behind, before in _activations(network, self._layers).items():
            if before not in self._refused:
                self._handles.append(behind.register_forward_hook(self._watch_activation(before)))
        for optimizer in set(self._owners.values()):
            self._handles.append(optimizer.register_step_pre_hook(self._commit))
        return self

    def left_out(self) -> dict[str, str]:
        """Trained parameters of which `verdicts` says nothing, and why."""
        names = [name for name in self._signals if self._pairs(name)]
        told = {f"{name}.{kind}" if name else kind for name in names for kind in self._kinds(name)}
        return {name: self._reason(name) for name in self._trained if name not in told}

    def _reason(self, name: str) -> str:
        """Why nothing is said of a parameter."""
        layer, _, kind = name.rpartition(".")
        if self._trained[name] in self._tied:
            return TIED
        if layer in self._layers and kind in ("weight", "bias"):
            return self._refused.get(layer, "without a gradient")
        return "neither linear nor a convolution"

    def _kinds(self, name: str) -> list[str]:
        """ "bias" and "weight", as far as the layer has them and trains them."""
        own = dict(self._layers[name].named_parameters(recurse=False))
        return [kind for kind in ("bias", "weight") if kind in own and own[kind].requires_grad]

    def _pairs(self, name: str) -> list[tuple[Tensor, Tensor]]:
        """What was kept of a layer and is not all 0; nothing of layers that are refused."""
        if name in self._refused:
            return []
        return [(x, s) for x, s in self._signals.get(name, ()) if s.any()]

    def detach(self) -> None:
        """Watch no more, and leave the network as it was; what was kept stays."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._pending.clear()
        for module in self._skipped:
            module.skip_empty = True
        self._skipped.clear()

    def __len__(self) -> int:
        return max((_rows(chunks) for chunks in self._signals.values()), default=0)

    def clear(self) -> None:
        """Forget all samples."""
        self._signals.clear()
        self._slopes.clear()
        self._pending.clear()

    def verdicts(self) -> dict[str, Verdict]:
        """By "layer bias" and "layer weight", for the layers that had gradients."""
        before, self.paused = self.paused, True  # layers are called anew, which is not to be kept
        try:
            return self._verdicts()
        finally:
            self.paused = before

    def _verdicts(self) -> dict[str, Verdict]:
        verdicts = {}
        for name in self._signals:
            pairs = self._pairs(name)
            if not pairs:
                continue
            layer, kinds = self._layers[name], self._kinds(name)
            if "bias" in kinds:
                share = self._share(_rows(pairs), layer.get_parameter("bias").numel())
                bias = torch.cat([_by_bias(layer, s[::share]) for _, s in pairs]).abs()
                verdicts[f"{name} bias"] = judge(bias, self._coupling(name))
            if "weight" in kinds:
                size = layer.get_parameter("weight").numel()
                share = self._share(_rows(pairs), size, _MOST)
                weight = torch.cat([_by_weight(layer, x[::share], s[::share]) for x, s in pairs])
                verdicts[f"{name} weight"] = judge(weight.abs())
        return verdicts

    def _share(self, rows: int, size: int, most: int | None = None) -> int:
        """Every how many samples one is judged, where each has so many sizes."""
        most = self.most or most
        return 1 if most is None else max(1, math.ceil(rows * size / most))

    def _coupling(self, name: str) -> float:
        chunks = self._slopes.get(name)
        if not chunks:
            return math.nan
        if len({back.shape[1:] for back, _ in chunks}) > 1:
            return math.nan
        layer = self._layers[name]
        share = self._share(_rows(chunks), layer.get_parameter("bias").numel())
        back, slope = (torch.cat(rows)[::share] for rows in zip(*chunks, strict=True))
        shuffled = torch.randperm(len(back), generator=torch.Generator().manual_seed(0))
        apart = _by_bias(layer, back[shuffled] * slope).abs()
        together = _by_bias(layer, back * slope).abs()
        try:
            window = top_window(together)
            there, here = fit_power_law(apart, *window), fit_power_law(together, *window)
        except ValueError:
            return math.nan
        return there.exponent - here.exponent

    def _count(self, network: nn.Module, inputs: Any) -> None:
        """Calls of the network tell its samples: within one call a layer has its row once."""
        self._call += 1

    def _watch(self, name: str) -> Any:
        def seen(layer: nn.Module, inputs: Any, named: dict[str, Any], output: Tensor) -> None:
            if self.paused or not output.requires_grad:
                return
            x, call = (inputs[0] if inputs else named["input"]).detach(), self._call
            if x.dim() < _least_dimensions(layer):
                self._refused[name] = "given a sample without an axis of samples"
                return

            def back(s: Tensor) -> None:
                uses, use = self._uses.setdefault(name, set()), (_backward_pass(), call)
                if use in uses:
                    self._refused[name] = "used more than once in a pass"
                if uses and next(iter(uses))[0] != use[0]:
                    uses.clear()
                uses.add(use)
                self._receive(name, _Signal(use[0], False, x, s.detach()))

            output.register_hook(back)

        return seen

    def _watch_activation(self, name: str) -> Any:
        def seen(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            if self.paused or not output.requires_grad:
                return
            z = inputs[0].detach()[-self.window :]

            def back(signal: Tensor) -> None:
                signal = signal[-self.window :]
                with torch.enable_grad():
                    own = z.clone().requires_grad_()
                    (slope,) = torch.autograd.grad(type(layer).forward(layer, own).sum(), own)
                self._receive(name, _Signal(_backward_pass(), True, signal.detach(), slope))

            output.register_hook(back)

        return seen

    def _receive(self, name: str, signal: _Signal) -> None:
        """Wait for the step of the layer's optimizer; what it has forgotten since is dropped."""
        if self.paused or name in self._refused:
            return
        if name not in self._owners:
            self._keep(name, signal)
            return
        pending = self._pending.setdefault(name, [])
        if pending and pending[-1].backward_pass != signal.backward_pass:
            gradients = [p.grad for p in self._layers[name].parameters(recurse=False)]
            if not any(gradient is not None and gradient.any() for gradient in gradients):
                pending.clear()
        pending.append(signal)

    def _commit(self, optimizer: Optimizer, *arguments: Any) -> None:
        """The optimizer makes a step: its layers learn from what waits."""
        rows = [_rows(chunks) for chunks in self._signals.values()]
        if self.once and rows and min(rows) >= self.window:  # others had their step since
            self.paused = True
            return
        for name in [name for name in self._pending if self._owners[name] is optimizer]:
            for signal in self._pending.pop(name):
                self._keep(name, signal)

    def _keep(self, name: str, signal: _Signal) -> None:
        chunks = (self._slopes if signal.is_slope else self._signals).setdefault(name, [])
        chunks.append((signal.first[-self.window :].cpu(), signal.second[-self.window :].cpu()))
        while len(chunks) > 1 and _rows(chunks) - len(chunks[0][0]) >= self.window:
            del chunks[0]


def require_samples_apart(network: nn.Module) -> None:
    """Raise ValueError for batch normalisation, which mixes the samples of a batch."""
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm):
            raise ValueError(
                f"network: {name!r} is a {type(module).__name__}, which mixes the samples of a "
                "batch; there are no gradients of single samples"
            )


def judge(sizes: Tensor, coupling: float = math.nan) -> Verdict:
    """The verdict on sizes of gradients [samples, ...]; those that are not finite do not count.

    Samples are independent, the sizes of one are not: see `power_law.in_groups`.
    """
    flat = sizes.detach().flatten()
    flat = flat[(flat > 0) & (flat < math.inf)]
    if len(flat) < FEWEST:
        return Verdict(None, (math.nan,) * DECADES, coupling, flat)
    values = flat.cpu().double().numpy()
    _, top = top_window(values, below=0.0)
    running = running_exponents(values, top * 10.0**-DECADES, top)[::-1]
    high = top * 10.0**-_BELOW
    try:
        law = fit_power_law(values, high * 10.0**-_WIDTH, high)
    except ValueError:
        law = None
    if law is not None and sizes.dim() > 1:
        law = in_groups(law, sizes.detach().cpu().double().numpy())
    return Verdict(law, running, coupling, flat)


def columns(verdicts: dict[str, Verdict]) -> dict[str, float]:
    """Numbers for a log, a row of progress.csv or TensorBoard."""
    row = {}
    for name, verdict in verdicts.items():
        if verdict.law is not None:
            key = f"criticality/{name.replace(' ', '/')}"
            row[f"{key}/exponent"] = verdict.law.exponent
            row[f"{key}/error"] = verdict.law.error
            row[f"{key}/ks"] = verdict.law.ks
            row[f"{key}/is_power_law"] = float(verdict.law.is_power_law)
    return row


def described(verdicts: dict[str, Verdict]) -> list[dict[str, Any]]:
    """One entry per layer and kind, as JSON has it; what is not known is left out."""
    rows = []
    for name, verdict in verdicts.items():
        layer, _, kind = name.rpartition(" ")
        row: dict[str, Any] = {"layer": layer, "kind": kind, "verdict": verdict.text}
        row["by_decade"] = [None if math.isnan(k) else k for k in verdict.running]
        if verdict.law is not None:
            law = verdict.law
            row |= {"exponent": law.exponent, "error": law.error, "n": law.n}
            row |= {"ks": law.ks, "ks_bound": law.bound}
            row |= {"window": [law.low, law.high], "is_power_law": law.is_power_law}
        if not math.isnan(verdict.coupling):
            row["coupling"] = verdict.coupling
        rows.append(row)
    return rows


def _optimizers(network: nn.Module) -> list[Optimizer]:
    """Those that a network or its parts have as attributes."""
    values = [value for module in network.modules() for value in vars(module).values()]
    return [value for value in values if isinstance(value, Optimizer)]


def _owners(optimizers: Iterable[Optimizer]) -> dict[nn.Parameter, Optimizer]:
    """The optimizer of every parameter."""
    return {
        p: optimizer
        for optimizer in optimizers
        for group in optimizer.param_groups
        for p in group["params"]
    }


def _tied(network: nn.Module) -> set[nn.Parameter]:
    """Parameters of more than one module."""
    held = [p for module in network.modules() for p in module.parameters(recurse=False)]
    return {p for p, n in Counter(held).items() if n > 1}


def _least_dimensions(layer: nn.Module) -> int:
    """Of an input that has an axis of samples."""
    return 2 + len(layer.kernel_size) if isinstance(layer, _ConvNd) else 2


def _backward_pass() -> int:
    """The number of the backward pass that is under way."""
    return int(torch._C._current_graph_task_id())


def _activations(network: nn.Module, layers: dict[str, nn.Module]) -> dict[nn.Module, str]:
    """Activations that stand right behind one layer in a `Sequential`, and behind no other."""
    names = {layer: name for name, layer in layers.items()}
    behind: dict[nn.Module, list[str]] = {}
    for sequence in network.modules():
        if isinstance(sequence, nn.Sequential):
            for first, second in pairwise(sequence):
                if isinstance(second, _ACTIVATIONS) and not getattr(second, "inplace", False):
                    behind.setdefault(second, []).append(names.get(first, ""))
    return {
        module: before[0] for module, before in behind.items() if len(before) == 1 and before[0]
    }


def _rows(chunks: Iterable[tuple[Tensor, Tensor]]) -> int:
    return sum(len(first) for first, _ in chunks)


def _by_bias(layer: nn.Module, s: Tensor) -> Tensor:
    """Bias gradients [samples, out] of s [samples, …, out] (convolutions: [samples, out, …])."""
    if isinstance(layer, _ConvNd):
        return s.flatten(2).sum(2)
    return s.reshape(len(s), -1, s.shape[-1]).sum(1)


def _by_weight(layer: nn.Module, x: Tensor, s: Tensor) -> Tensor:
    """Weight gradients [samples, …] of inputs x and back-signals s, which have a row a sample."""
    if not isinstance(layer, _ConvNd):
        x, s = (t.reshape(len(t), -1, t.shape[-1]) for t in (x, s))
        return torch.einsum("mko,mki->moi", s, x)
    given = {name: p.detach().to(x) for name, p in layer.named_parameters(recurse=False)}

    def pull(weight: Tensor, own: Tensor, signal: Tensor) -> Tensor:
        # A layer is linear in its weights: what s pulls at them with is the gradient of s z.
        call = given | {"weight": weight}
        output = torch.func.functional_call(layer, call, (own.unsqueeze(0),))
        return (output * signal.unsqueeze(0)).sum()

    each = torch.func.vmap(torch.func.grad(pull), in_dims=(None, 0, 0))
    gradients: Tensor = each(given["weight"], x, s)
    return gradients
