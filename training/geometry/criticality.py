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
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ...envs.core.validation import require_count
from .power_law import FEWEST, PowerLaw, fit_power_law, running_exponents, top_window

DECADES = 5  # below the top for which exponents are told
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


class SampleRecorder:
    """Gradients of single samples in the linear layers of a network, as it learns.

    window: samples that are kept of each layer, the latest.  While `paused` nothing is kept.
    """

    def __init__(self, window: int = 4096) -> None:
        require_count("window", window, FEWEST)
        self.window = window
        self.paused = False
        self._signals: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._slopes: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._handles: list[Any] = []
        self._layers: dict[str, nn.Module] = {}
        self._trained: list[str] = []

    def attach(self, network: nn.Module) -> SampleRecorder:
        """Watch linear layers and convolutions, and the activations behind them; returns itself.

        Raises ValueError for batch normalisation, which mixes the samples of a batch.
        """
        for name, module in network.named_modules():
            if isinstance(module, _BatchNorm):
                raise ValueError(
                    f"network: {name!r} is a {type(module).__name__}, which mixes the samples of a "
                    "batch; there are no gradients of single samples"
                )
        self._trained = [name for name, p in network.named_parameters() if p.requires_grad]
        modules = dict(network.named_modules())
        self._layers = {name: m for name, m in modules.items() if isinstance(m, _LAYERS)}
        for name, layer in self._layers.items():
            self._handles.append(layer.register_forward_hook(self._watch(name)))
        for behind, before in _activations(network, self._layers).items():
            self._handles.append(behind.register_forward_hook(self._watch_activation(before)))
        return self

    def left_out(self) -> list[str]:
        """Names of trained parameters of which `verdicts` says nothing."""
        seen = [(name, kind) for name in self._signals for kind in self._kinds(name)]
        told = {f"{name}.{kind}" if name else kind for name, kind in seen}
        return [name for name in self._trained if name not in told]

    def _kinds(self, name: str) -> list[str]:
        """ "bias" and "weight", as far as the layer has them and trains them."""
        own = dict(self._layers[name].named_parameters(recurse=False))
        return [kind for kind in ("bias", "weight") if kind in own and own[kind].requires_grad]

    def detach(self) -> None:
        """Watch no more; what was kept stays."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __len__(self) -> int:
        return max((_rows(chunks) for chunks in self._signals.values()), default=0)

    def clear(self) -> None:
        """Forget all samples."""
        self._signals.clear()
        self._slopes.clear()

    def verdicts(self) -> dict[str, Verdict]:
        """By "layer bias" and "layer weight", for the layers that had gradients."""
        before, self.paused = self.paused, True  # layers are called anew, which is not to be kept
        try:
            return self._verdicts()
        finally:
            self.paused = before

    def _verdicts(self) -> dict[str, Verdict]:
        verdicts = {}
        for name, chunks in self._signals.items():
            pairs = [(x, s) for x, s in chunks if s.any()]
            if not pairs:
                continue
            layer, kinds = self._layers[name], self._kinds(name)
            if "bias" in kinds:
                bias = torch.cat([_by_bias(layer, s) for _, s in pairs]).abs()
                verdicts[f"{name} bias"] = judge(bias, self._coupling(name))
            if "weight" in kinds:
                size = layer.get_parameter("weight").numel()
                share = max(1, math.ceil(_rows(pairs) * size / _MOST))
                weight = torch.cat([_by_weight(layer, x[::share], s[::share]) for x, s in pairs])
                verdicts[f"{name} weight"] = judge(weight.abs())
        return verdicts

    def _coupling(self, name: str) -> float:
        chunks = self._slopes.get(name)
        if not chunks:
            return math.nan
        if len({back.shape[1:] for back, _ in chunks}) > 1:
            return math.nan
        back, slope = (torch.cat(rows) for rows in zip(*chunks, strict=True))
        layer = self._layers[name]
        shuffled = torch.randperm(len(back), generator=torch.Generator().manual_seed(0))
        apart = _by_bias(layer, back[shuffled] * slope).abs()
        together = _by_bias(layer, back * slope).abs()
        try:
            window = top_window(together)
            there, here = fit_power_law(apart, *window), fit_power_law(together, *window)
        except ValueError:
            return math.nan
        return there.exponent - here.exponent

    def _watch(self, name: str) -> Any:
        def seen(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            if self.paused or not output.requires_grad:
                return
            x = inputs[0].detach()
            output.register_hook(lambda s: self._keep(self._signals, name, x, s.detach()))

        return seen

    def _watch_activation(self, name: str) -> Any:
        def seen(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            if self.paused or not output.requires_grad:
                return
            z = inputs[0].detach()

            def back(signal: Tensor) -> None:
                with torch.enable_grad():
                    own = z.clone().requires_grad_()
                    (slope,) = torch.autograd.grad(type(layer).forward(layer, own).sum(), own)
                self._keep(self._slopes, name, signal.detach(), slope)

            output.register_hook(back)

        return seen

    def _keep(
        self, store: dict[str, list[tuple[Tensor, Tensor]]], name: str, a: Tensor, b: Tensor
    ) -> None:
        chunks = store.setdefault(name, [])
        chunks.append((a[-self.window :].cpu(), b[-self.window :].cpu()))
        while len(chunks) > 1 and _rows(chunks) - len(chunks[0][0]) >= self.window:
            del chunks[0]


def judge(sizes: Tensor, coupling: float = math.nan) -> Verdict:
    """The verdict on sizes of gradients, any shape; those that are not finite do not count."""
    flat = sizes.flatten()
    flat = flat[flat.isfinite()]
    flat = flat[flat > 0]
    if len(flat) < FEWEST:
        return Verdict(None, (math.nan,) * DECADES, coupling, flat)
    _, top = top_window(flat, below=0.0)
    running = running_exponents(flat, top * 10.0**-DECADES, top)[::-1]
    try:
        law = fit_power_law(flat, *top_window(flat))
    except ValueError:
        law = None
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
            row |= {"exponent": law.exponent, "error": law.error, "ks": law.ks, "n": law.n}
            row |= {"window": [law.low, law.high], "is_power_law": law.is_power_law}
        if not math.isnan(verdict.coupling):
            row["coupling"] = verdict.coupling
        rows.append(row)
    return rows


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
