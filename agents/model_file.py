"""Model files: plain arrays in one .npz, with species, units, cutoffs and where they come from.

Nothing in a file is executed: arrays are read with pickles refused, text is JSON.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..envs.core.system import nearest
from .losses import LossModel, Radial, Walls
from .message_net import MessageNet

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
    part = path.with_name(path.name + ".part")
    part.write_bytes(buffer.getvalue())
    os.replace(part, path)


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
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        about = json.loads(str(arrays.pop("head")))
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{name} is no model file: {error}") from None
    if about.get("format") != FORMAT or about.get("version") != VERSION:
        said = f"{about.get('format')} {about.get('version')}"
        raise ValueError(f"{name} holds {said}; this version reads {FORMAT} {VERSION}")
    read = _read_net if about["kind"] == "net" else _read_losses
    sample = None
    if "sample_position" in arrays:
        sample = Sample(*(arrays.get(f"sample_{key}") for key in Sample._fields))  # type: ignore[arg-type]
    return Saved(read(arrays), about, sample, arrays.get("structure"))


def _loss_arrays(model: LossModel) -> dict[str, np.ndarray]:
    found = {
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
            found[f"matrix_{s}"] = model.matrices[s]
        for t in species:
            found[f"pair_{s}_{t}"] = model.pair_weights[s][t]
            for name, radial in (("pair", model.pair), ("channel", model.channels)):
                both = np.stack([radial.centres[s][t], radial.widths[s][t]])
                found[f"{name}_radial_{s}_{t}"] = both
    return found


def _read_losses(arrays: dict[str, np.ndarray]) -> LossModel:
    numbers = tuple(int(n) for n in arrays["numbers"])
    species, order = range(len(numbers)), int(arrays["order"])

    def radial(name: str, cutoff: float) -> Radial:
        both = [[arrays[f"{name}_radial_{s}_{t}"] for t in species] for s in species]
        centres = tuple(tuple(part[0] for part in row) for row in both)
        return Radial(cutoff, centres, tuple(tuple(part[1] for part in row) for row in both))

    longest, pull = map(float, arrays["wall_bond"])
    near, far = map(float, arrays["cutoffs"])
    return LossModel(
        numbers,
        bool(arrays["shared"]),
        radial("pair", near),
        tuple(tuple(arrays[f"pair_{s}_{t}"] for t in species) for s in species),
        order,
        radial("channel", far),
        tuple(arrays[f"matrix_{s}"] for s in species) if order >= 0 else (),
        Walls(arrays["wall_nearest"], arrays["wall_stiffness"], longest, pull),
        float(arrays["constant"]),
    )


def _net_arrays(model: NetModel) -> dict[str, np.ndarray]:
    net = model.net
    sizes = {"numbers": net.numbers, "cutoff": net.cutoff, "channels": net.channels}
    found = {f"size_{key}": np.array(value) for key, value in sizes.items()}
    found["size_hidden"] = np.array(net.talk[0][0].out_features)  # type: ignore[index]
    found |= {f"weight_{key}": value.float().numpy() for key, value in net.state_dict().items()}
    found["net_constant"] = np.array(model.constant)
    return found | _loss_arrays(model.walls)


def _read_net(arrays: dict[str, np.ndarray]) -> NetModel:
    weights = {
        key.removeprefix("weight_"): torch.from_numpy(value)
        for key, value in arrays.items()
        if key.startswith("weight_")
    }
    net = MessageNet(
        tuple(int(n) for n in arrays["size_numbers"]),
        cutoff=float(arrays["size_cutoff"]),
        channels=int(arrays["size_channels"]),
        hidden=int(arrays["size_hidden"]),
        centres=weights["centres"],
        widths=weights["widths"],
        seed=0,
    )
    net.load_state_dict(weights)
    return NetModel(net.double(), _read_losses(arrays), float(arrays["net_constant"]))
