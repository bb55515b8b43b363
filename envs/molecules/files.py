"""Model files: plain arrays in one .npz, with species, units, cutoffs and where they come from.

Nothing in a file is executed: arrays are read with pickles refused, text is JSON.
"""

from __future__ import annotations

import io
import json
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..core.files import load_arrays, write_atomically
from ..core.physics.units import SYMBOLS
from ..core.validation import nearest
from .linear import LossModel, Radial, RepulsiveWall
from .network import MessageNet

FORMAT, VERSION = "invariantzoo-losses", 1
SHIPPED = ("water-pair", "water-angular", "water-best")
UNITS = "Angstrom, eV, fs, amu"


class NetModel(NamedTuple):
    """A network loss with walls (a loss model without weights) and eV per agent to add."""

    net: MessageNet
    walls: LossModel
    constant: float = 0.0


class Sample(NamedTuple):
    """A frame of the data, from which simulations start.

    position [n, 3] and cell [3, 3] in Angstrom; numbers [n]; owner [hydrogens] or None.
    """

    position: np.ndarray
    cell: np.ndarray
    numbers: np.ndarray
    owner: np.ndarray | None


class Saved(NamedTuple):
    """A model and what is known of it.

    about: "loss", "forces", "data" (its name), "digest" (SHA-256 of the data), "limits" (sampled
    distances by pair of atomic numbers), "rmse_mev_per_angstrom" of the validation block.
    structure [kinds, kinds, bins]: radial distribution functions of the data, bins of 0.01 A.
    """

    model: LossModel | NetModel
    about: dict[str, Any]
    sample: Sample | None = None
    structure: np.ndarray | None = None


def save_model(
    path: str | Path,
    model: LossModel | NetModel,
    about: dict[str, Any],
    *,
    sample: Sample | None = None,
    structure: np.ndarray | None = None,
) -> None:
    """Write a model whole or not at all."""
    path = Path(path)
    head = {"format": FORMAT, "version": VERSION, "units": UNITS, **about}
    arrays = _net_arrays(model) if isinstance(model, NetModel) else _loss_arrays(model)
    kind = "net" if isinstance(model, NetModel) else "losses"
    head["kind"] = kind
    if sample is not None:
        parts = {key: value for key, value in sample._asdict().items() if value is not None}
        arrays |= {f"sample_{key}": np.asarray(value) for key, value in parts.items()}
    if structure is not None:
        arrays["structure"] = structure.astype(np.float32)
    buffer = io.BytesIO()
    arrays["head"] = np.array(json.dumps(head))
    savez: Any = np.savez_compressed
    savez(buffer, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write_bytes(buffer.getvalue()))


def load_model(name: str | Path) -> Saved:
    """A model file, or one of the models that ship, by name.

    Raises FileNotFoundError with the nearest name, and ValueError for what is no model file.
    """
    path = Path(name)
    if str(name) in SHIPPED:
        path = Path(str(resources.files(__package__) / "models" / f"{name}.npz"))
    if not path.is_file():
        hint = nearest(str(name), SHIPPED)
        raise FileNotFoundError(
            f"{name}: there is no such model file{hint} (ship: {', '.join(SHIPPED)})"
        )
    try:
        arrays = load_arrays(path)
        about = _head(arrays)
        model = _read_net(arrays) if about["kind"] == "net" else _read_losses(arrays)
        sample, structure = _sample(arrays), _structure(arrays, model)
    except ValueError as error:
        text = " ".join(str(error).split()).removeprefix(f"{path} ")
        raise ValueError(f"{name} is no model file: {text}") from None
    return Saved(model, about, sample, structure)


def _head(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """What is known of a model; ValueError for another format, version or kind of model."""
    if "head" not in arrays:
        raise ValueError(f"it has no head (has {', '.join(sorted(arrays)[:8]) or 'nothing'})")
    try:
        about = json.loads(str(arrays["head"]))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its head is no JSON: {error}") from None
    if not isinstance(about, dict):
        raise ValueError(f"its head is {type(about).__name__}, not an object")
    if about.get("format") != FORMAT or about.get("version") != VERSION:
        holds = f"{about.get('format')} {about.get('version')}"
        raise ValueError(f"it holds {holds}; this version reads {FORMAT} {VERSION}")
    if about.get("kind") not in ("net", "losses") or about.get("units", UNITS) != UNITS:
        holds = f"kind {about.get('kind')!r} in {about.get('units')!r}"
        raise ValueError(f"it holds {holds}; net and losses in {UNITS!r} are read")
    limits = about.get("limits", {})
    if not isinstance(limits, dict) or not all(_is_limit(value) for value in limits.values()):
        raise ValueError("its limits are not {pair: {nearest, bond}}")
    return about


def _is_limit(value: object) -> bool:
    if not isinstance(value, dict) or not {"nearest", "bond"} <= set(value):
        return False
    return all(isinstance(value[key], int | float) for key in ("nearest", "bond"))


def _array(
    arrays: dict[str, np.ndarray], name: str, shape: tuple[int | None, ...], kinds: str = "iuf"
) -> np.ndarray:
    """An array of finite numbers of some shape, None for any length; ValueError for another."""
    if name not in arrays:
        raise ValueError(f"it has no {name!r}")
    array = arrays[name]
    fits = len(array.shape) == len(shape) and all(
        size is None or size == length for size, length in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype.kind not in kinds:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name!r} has shape {array.shape} of {array.dtype}, not ({wanted})")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name!r} is not finite")
    return array


def _species(arrays: dict[str, np.ndarray], name: str) -> tuple[int, ...]:
    numbers = tuple(int(n) for n in _array(arrays, name, (None,), "iu"))
    if not numbers or list(numbers) != sorted(set(numbers)) or not 0 < min(numbers):
        raise ValueError(f"{name!r} {list(numbers)} are no rising atomic numbers")
    if max(numbers) >= len(SYMBOLS):
        raise ValueError(f"{name!r} {list(numbers)} go beyond {len(SYMBOLS) - 1}")
    return numbers


def _positive(arrays: dict[str, np.ndarray], name: str, kinds: str = "iuf") -> float:
    value = float(_array(arrays, name, (), kinds))
    if not value > 0:
        raise ValueError(f"{name!r} is {value:g}, not above 0")
    return value


def _sample(arrays: dict[str, np.ndarray]) -> Sample | None:
    if not any(name.startswith("sample_") for name in arrays):
        return None
    numbers = _array(arrays, "sample_numbers", (None,), "iu")
    atoms = len(numbers)
    if not atoms or numbers.min() < 1 or numbers.max() >= len(SYMBOLS):
        raise ValueError("'sample_numbers' are no atomic numbers")
    owner = None
    if "sample_owner" in arrays:
        owner = _array(arrays, "sample_owner", (int((numbers == 1).sum()),), "iu")
        if len(owner) and not 0 <= owner.min() <= owner.max() < atoms:
            raise ValueError("'sample_owner' names atoms that are not there")
    cell = _array(arrays, "sample_cell", (3, 3))
    if cell.any() and abs(np.linalg.det(cell)) < 1e-9:
        raise ValueError("'sample_cell' spans no volume")
    return Sample(_array(arrays, "sample_position", (atoms, 3)), cell, numbers, owner)


def _structure(arrays: dict[str, np.ndarray], model: LossModel | NetModel) -> np.ndarray | None:
    if "structure" not in arrays:
        return None
    species = len(model.net.numbers if isinstance(model, NetModel) else model.numbers)
    return _array(arrays, "structure", (species, species, None))


def _loss_arrays(model: LossModel) -> dict[str, np.ndarray]:
    arrays = {
        "numbers": np.array(model.numbers),
        "shared": np.array(model.shared),
        "order": np.array(model.order),
        "constant": np.array(model.constant),
        "wall_nearest": model.walls.nearest,
        "wall_stiffness": model.walls.stiffness,
        "wall_bond": np.array([model.walls.longest, model.walls.pull]),
        "cutoffs": np.array([model.pair.cutoff, model.channels.cutoff]),
    }
    species = range(len(model.numbers))
    for s in species:
        if model.order >= 0:
            arrays[f"matrix_{s}"] = model.matrices[s]
        for t in species:
            arrays[f"pair_{s}_{t}"] = model.pair_weights[s][t]
            for name, radial in (("pair", model.pair), ("channel", model.channels)):
                both = np.stack([radial.centres[s][t], radial.widths[s][t]])
                arrays[f"{name}_radial_{s}_{t}"] = both
    return arrays


def _read_losses(arrays: dict[str, np.ndarray]) -> LossModel:
    numbers = _species(arrays, "numbers")
    count = len(numbers)
    species, order = range(count), int(_array(arrays, "order", (), "iu"))
    if not -1 <= order <= 3:
        raise ValueError(f"'order' is {order}, none of -1 to 3")

    def radial(name: str, cutoff: float) -> Radial:
        both = [
            [_array(arrays, f"{name}_radial_{s}_{t}", (2, None)) for t in species] for s in species
        ]
        used = [
            functions
            for row in both
            for functions in row
            if functions.size and (name == "pair" or order >= 0)
        ]
        if any(functions[1].min() <= 0 or cutoff <= 0 for functions in used):
            raise ValueError(f"the widths or the cutoff of its {name} functions are not above 0")
        centres = tuple(tuple(functions[0] for functions in row) for row in both)
        return Radial(
            cutoff, centres, tuple(tuple(functions[1] for functions in row) for row in both)
        )

    def matrix(s: int) -> np.ndarray:
        channels = sum(len(channel.centres[s][t]) for t in species)
        return _array(arrays, f"matrix_{s}", (order + 1, channels, channels))

    longest, pull = map(float, _array(arrays, "wall_bond", (2,)))
    near, far = map(float, _array(arrays, "cutoffs", (2,)))
    pair, channel = radial("pair", near), radial("channel", far)
    weights = [
        [_array(arrays, f"pair_{s}_{t}", (len(pair.centres[s][t]),)) for t in species]
        for s in species
    ]
    walls = [_array(arrays, f"wall_{name}", (count, count)) for name in ("nearest", "stiffness")]
    return LossModel(
        numbers,
        bool(_array(arrays, "shared", (), "b")),
        pair,
        tuple(map(tuple, weights)),
        order,
        channel,
        tuple(matrix(s) for s in species) if order >= 0 else (),
        RepulsiveWall(walls[0], walls[1], longest, pull),
        float(_array(arrays, "constant", ())),
    )


def _net_arrays(model: NetModel) -> dict[str, np.ndarray]:
    net = model.net
    sizes = {"numbers": net.numbers, "cutoff": net.cutoff, "channels": net.channels}
    arrays = {f"size_{key}": np.array(value) for key, value in sizes.items()}
    arrays["size_hidden"] = np.array(net.talk[0][0].out_features)  # type: ignore[index]
    arrays |= {f"weight_{key}": value.float().numpy() for key, value in net.state_dict().items()}
    arrays["net_constant"] = np.array(model.constant)
    return arrays | _loss_arrays(model.walls)


def _read_net(arrays: dict[str, np.ndarray]) -> NetModel:
    numbers, walls = _species(arrays, "size_numbers"), _read_losses(arrays)
    names = [name for name in arrays if name.startswith("weight_")]
    channels, hidden = (int(_positive(arrays, f"size_{n}", "iu")) for n in ("channels", "hidden"))
    _array(arrays, "weight_carry", (None, channels, channels))
    _array(arrays, "weight_talk.0.0.weight", (hidden, None))
    functions = _array(arrays, "weight_centres", (None,)).shape
    _array(arrays, "weight_widths", functions)
    weights = {
        name.removeprefix("weight_"): torch.from_numpy(
            _array(arrays, name, (None,) * arrays[name].ndim)
        )
        for name in names
    }
    net = MessageNet(
        numbers,
        cutoff=_positive(arrays, "size_cutoff"),
        channels=channels,
        hidden=hidden,
        centres=weights["centres"],
        widths=weights["widths"],
        seed=0,
    )
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:  # names what is missing, or of another shape
        raise ValueError(f"its weights do not fit its sizes: {error}") from None
    return NetModel(net.double(), walls, float(_array(arrays, "net_constant", ())))
