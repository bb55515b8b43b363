"""Do gradients of single samples follow power laws? Layer by layer, weights and biases apart.

While a network learns, whatever the algorithm, a recorder keeps for every linear layer z = W x + b
what each sample's loss gives back to it, s = dL / dz, and its input x: the gradients of that sample
are s for the bias and s x^T for the weights, summed over neighbours where a layer is applied to
several; a sample is a row of what the network is given. Their sizes are judged by `fit_power_law`
on three decades that end a decade below their 99.9 % quantile, and told by decade from that
quantile down.

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

from ...envs.core.validation import require_count
from .power_law import FEWEST, PowerLaw, fit_power_law, running_exponents, top_window

DECADES = 5  # below the top for which exponents are told
_MOST = 200_000  # sizes of weight gradients of a layer that are kept


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

    def attach(self, network: nn.Module) -> SampleRecorder:
        """Watch the linear layers of a network, and the activations behind them; returns itself."""
        layers = {name: m for name, m in network.named_modules() if isinstance(m, nn.Linear)}
        for name, layer in layers.items():
            self._handles.append(layer.register_forward_hook(self._watch(name)))
        for behind, before in _activations(network, layers).items():
            self._handles.append(behind.register_forward_hook(self._watch_activation(before)))
        return self

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
        verdicts = {}
        for name, chunks in self._signals.items():
            pairs = [(x, s) for x, s in chunks if s.any()]
            if not pairs:
                continue
            bias = torch.cat([_per_sample(s) for _, s in pairs]).abs()
            share = max(1, math.ceil(len(bias) * pairs[0][0].shape[-1] * bias.shape[1] / _MOST))
            weight = torch.cat([_outer(x[::share], s[::share]) for x, s in pairs]).abs()
            verdicts[f"{name} bias"] = judge(bias, self._coupling(name))
            verdicts[f"{name} weight"] = judge(weight)
        return verdicts

    def _coupling(self, name: str) -> float:
        chunks = self._slopes.get(name)
        if not chunks:
            return math.nan
        back, slope = (torch.cat(rows) for rows in zip(*chunks, strict=True))
        shuffled = torch.randperm(len(back), generator=torch.Generator().manual_seed(0))
        apart, together = (back[shuffled] * slope).abs(), (back * slope).abs()
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
    """The verdict on sizes of gradients, any shape."""
    flat = sizes.flatten()
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


def _activations(network: nn.Module, layers: dict[str, nn.Linear]) -> dict[nn.Module, str]:
    """Modules without weights that stand right behind a linear layer in a `Sequential`."""
    names = {layer: name for name, layer in layers.items()}
    behind = {}
    for sequence in network.modules():
        if isinstance(sequence, nn.Sequential):
            for first, second in pairwise(sequence):
                if first in names and not list(second.parameters()):
                    behind[second] = names[first]
    return behind


def _rows(chunks: Iterable[tuple[Tensor, Tensor]]) -> int:
    return sum(len(first) for first, _ in chunks)


def _per_sample(s: Tensor) -> Tensor:
    """Bias gradients [samples, out] of s [samples, ..., out]."""
    return s.reshape(len(s), -1, s.shape[-1]).sum(1)


def _outer(x: Tensor, s: Tensor) -> Tensor:
    """Weight gradients [samples, out, in] of x [samples, ..., in] and s [samples, ..., out]."""
    x, s = (t.reshape(len(t), -1, t.shape[-1]) for t in (x, s))
    return torch.einsum("mko,mki->moi", s, x)
