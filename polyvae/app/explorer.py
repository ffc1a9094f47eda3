"""The latent explorer: the plane of the latents and the chain that the decoder gives, alive in a page of its own.

`save_explorer` writes what the page needs of a run, `explorer_section` makes HTML of it, `explore` both at once.
The page decodes by itself, from the decoder's weights, in the JavaScript of the folder `page/explorer/`; nothing
is fetched.
"""

import base64
import html
import json
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import jax
import numpy as np

import polyvae as pv
from polyvae import geometry
from polyvae.arguments import file_name, numbers_array, refusal
from polyvae.batches import map_frames
from polyvae.core.units import LENGTHS
from polyvae.cv.latent import LatentCV, check_cv
from polyvae.errors import InputError
from polyvae.files import replacing
from polyvae.io.heads import scale_note
from polyvae.measures.grids import kernel_width
from polyvae.measures.limits import Limits, known_limits
from polyvae.measures.objectives import values_of
from polyvae.measures.pairs import MANY
from polyvae.plot.latent import mean_kl, to_show
from polyvae.plot.style import evenly
from polyvae.records import json_object
from polyvae.trajectory.record import Trajectory, bonds_of, is_linear

FILE = "explorer.json"
LIMIT = 3_000_000  # bytes of the section, code included, for 10,000 frames
_MOST_POINTS = 20_000  # frames in the plane: with more, points cover each other
_WEIGHTS = 1_600_000  # characters for the decoder, beyond which frames alone are shown
_FRAMES = 1_200_000  # characters for the coordinates of frames
_STEPS = 32_767  # a coordinate is a whole number of these from the middle
_FORMAT = 1

_PAGE = files("polyvae.app") / "page" / "explorer"
_SCRIPTS = ("numbers.js", "decode.js", "measures.js", "colours.js", "density.js", "save.js", "plane.js",
            "chain.js", "brushes.js", "world.js", "explorer.js")  # fmt: skip
_in_one_frame = jax.jit(jax.vmap(lambda x: geometry.in_principal_frame(x, mirror=True)))


class Explorer:
    """The explorer of a model and a trajectory, as one page: a notebook shows it, `save` writes it."""

    def __init__(self, page: str):
        self.page = page

    def __repr__(self):
        return f"<Explorer: a page of {len(self.page) / 1e6:.1f} MB; a notebook shows it, .save(path) writes it>"

    def _repr_html_(self) -> str:
        style = "width:100%;height:1020px;border:0;background:transparent"
        return f'<iframe title="latent explorer" style="{style}" srcdoc="{html.escape(self.page)}"></iframe>'

    def save(self, path: str | os.PathLike) -> Path:
        """Write the page, one HTML file that needs nothing else; returns its path."""
        path = Path(file_name("path", path))
        with replacing(path) as temporary:
            temporary.write_text(self.page, encoding="utf-8")
        return path


def explore(cv: LatentCV, traj, *, observables: Mapping[str, Any] | None = None) -> Explorer:
    """A page to move in the latent space of a model, for a notebook or a file.

    The plane of the latents with the free energy and the frames; the decoder's conformation at the pointer, with
    bonds that break the data's limits marked; the trajectory and drawn paths to walk; frames to select.

    Args:
        cv: a model of a trajectory.
        traj: frames to show, a `Trajectory` or what `as_trajectory` takes, in their order; their weights count.
        observables: name to values (n_frames,), to colour the frames by beside Rg, end-to-end distance and time.

    Returns:
        An `Explorer`: a notebook shows it, `.save("explorer.html")` writes it.

    Raises:
        InputError: frames that do not fit the model, an observable without one number a frame.
    """
    data = explorer_data(cv, traj, observables)
    body = _section(_json(data))
    page = _PAGE.joinpath("page.html").read_text(encoding="utf-8")
    return Explorer(Template(page).substitute(section=body))


def save_explorer(
    path: str | os.PathLike,
    cv: LatentCV,
    traj,
    observables: Mapping[str, Any] | None = None,
    pieces: Sequence[str] | None = None,
) -> Path:
    """Write what `explorer_section` shows of a model and a trajectory, as JSON; see `explore`.

    Args:
        pieces: what each segment of the trajectory is called, such as its file.
    """
    path = Path(file_name("path", path))
    data = explorer_data(cv, traj, observables, pieces)
    with replacing(path) as temporary:
        temporary.write_text(_json(data), encoding="utf-8")
    return path


def explorer_section(folder: str | os.PathLike) -> str:
    """The explorer as a part of a page, from the explorer.json in a folder; "" where there is none.

    Raises:
        InputError: a file that is not what `save_explorer` writes.
    """
    path = Path(folder) / FILE
    if not path.exists():
        return ""
    advice = "`polyvae run` writes it; remove it for a report without the explorer"
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} must hold the data of an explorer, but cannot be read ({error}); {advice}"
        ) from None
    found = json_object(text, path, advice).get("format")
    if found != _FORMAT:
        raise InputError(f"{path} must hold the data of an explorer, format {_FORMAT}; got {found}; {advice}")
    return _section(text.decode())


def _section(text: str) -> str:
    def part(name: str) -> str:
        return _PAGE.joinpath(name).read_text(encoding="utf-8")

    script = "".join(part(name) for name in _SCRIPTS)
    # Within a script element nothing but its own end tag, or a comment, would end the text.
    values = {"data": text.replace("<", "\\u003c"), "style": part("explorer.css"), "script": script}
    return Template(part("explorer.html")).substitute(values)


def explorer_data(
    cv: LatentCV, traj, observables: Mapping[str, Any] | None = None, pieces: Sequence[str] | None = None
) -> dict:
    """Contents of the page as values that JSON holds; arrays are base64, little-endian."""
    cv = check_cv(cv)
    traj = cv.as_trajectory(traj)
    z = cv.transform(traj)
    values = _observables(traj, observables)
    rows = evenly(len(traj), _MOST_POINTS)
    data = {
        "format": _FORMAT,
        "n_frames": len(traj),
        "n_beads": cv.n_beads,
        "n_dims": cv.n_dims,
        "latent_dim": cv.latent_dim,
        "unit": LENGTHS[cv.length_unit].symbol,
        "pdb": _pdb(cv),
        "bonds": bonds_of(cv.template).ravel().tolist(),
        "masses": None if cv.template.unequal_masses is None else cv.template.unequal_masses.tolist(),
        "model": _model(cv),
        "limits": _limits(cv, traj),
        "frames": _packed(rows, "<u4"),
        "starts": np.cumsum([0, *traj.segments[:-1]]).tolist(),
        "origin": None if traj.origin is None else _packed(traj.origin[rows], "<u4"),
        "pieces": list(pieces) if pieces is not None and len(pieces) == len(traj.segments) else None,
        "z": _packed(z[rows], "<f4"),
        "widths": _kernel_widths(z, traj.weights),
        "axes": to_show(z, mean_kl(cv, traj, traj.weights), traj.weights)[0],
        "weights": None if traj.weights is None else _packed(traj.weights[rows] / traj.weights.max(), "<f4"),
        "values": [
            {"name": name, "unit": unit, "data": _packed(column[rows], "<f8")}
            for name, (unit, column) in values.items()
        ],
    }
    left = LIMIT - _code_size() - len(_json(data))
    return data | {"carried": _carried(cv, traj, rows, max(min(left, _FRAMES), 0))}


def _json(data: dict) -> str:
    return json.dumps(data, separators=(",", ":"), allow_nan=False)


def _packed(values, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode("ascii")


def _code_size() -> int:
    return sum(len(_PAGE.joinpath(name).read_bytes()) for name in (*_SCRIPTS, "explorer.css", "explorer.html"))


def _observables(traj: Trajectory, given: Mapping[str, Any] | None) -> dict[str, tuple[str, np.ndarray]]:
    """Unit and values (n_frames,) by name: size, time or else the frame's number, and what the caller gives."""
    if not isinstance(given, (Mapping, type(None))):
        raise refusal("observables", "a dictionary, name to one number a frame", given)
    unit = LENGTHS[traj.length_unit].symbol
    found = {"Rg": (unit, values_of("rg", traj))}
    if is_linear(bonds_of(traj), traj.n_beads):
        found["end-to-end"] = unit, values_of("end_to_end", traj)
    if traj.time is None or (np.diff(traj.time) <= 0).any():  # several files, each with a clock of its own
        found["frame"] = "", np.arange(len(traj), dtype=float)
    else:
        found["time"] = LENGTHS[traj.length_unit].time, np.asarray(traj.time)
    for name, column in (given or {}).items():
        if name in found:
            raise InputError(f"observables[{name!r}] is there already; give yours another name")
        column = numbers_array(f"observables[{name!r}]", column, "one number a frame", np.float64)
        if column.shape != (len(traj),):
            raise InputError(
                f"observables[{name!r}] must have one number a frame, {len(traj)} in all; got shape {column.shape}"
            )
        found[str(name)] = "", column
    return found


def _kernel_widths(z: np.ndarray, weights: np.ndarray | None) -> list[float]:
    """Kernel widths for the free energy over two latents, as `polyvae.free_energy` takes them; 0 for a constant
    one."""
    share = np.ones(len(z)) if weights is None else np.asarray(weights, float)
    kept = share > 0
    columns = z[kept].T.astype(float)
    return [kernel_width(column, share[kept], 2) if np.ptp(column) > 0 else 0.0 for column in columns]


def _pdb(cv: LatentCV) -> dict:
    """How the page writes a PDB, as `write` does: one residue a bead, 1 sigma as 10 Å, which the title says."""
    factor = 10 * LENGTHS[cv.length_unit].nm
    title = "POLYVAE" + (f", {scale_note('sigma', factor)}" if cv.length_unit == "sigma" else "")
    names = cv.template.names or ["B"] * cv.n_beads
    return {"factor": factor, "title": title, "names": [str(name)[:4] for name in names]}


def _model(cv: LatentCV) -> dict:
    """The decoder, layer by layer, and what makes coordinates of its output; or why the page cannot decode."""
    layers = cv.vae.decoder.layers
    size = sum(4 * layer.weight.size for layer in layers)
    if 4 * size // 3 > _WEIGHTS:
        words = (
            f"the decoder takes {size / 1e6:.1f} MB, more than this page carries, so that frames alone are shown"
        )
        return {"missing": words}
    found: dict[str, Any] = {
        "layers": [
            {"n_in": layer.in_features, "n_out": layer.out_features}
            | {"weight": _packed(layer.weight, "<f4"), "bias": _packed(layer.bias, "<f4")}
            for layer in layers
        ],
        "mean": _packed(cv.mean, "<f4"),
        "scale": _packed(np.ravel(cv.scale), "<f4"),
    }
    if not isinstance(cv.featurizer, pv.PairDistances):
        return found
    try:
        cv.featurizer.check_joined()
    except InputError:
        return {"missing": "the distances of this model do not join all beads, so that frames alone are shown"}
    every = cv.featurizer.every or 1
    joined = np.asarray(cv.featurizer.pairs) // every
    return found | {"pairs": _packed(joined, "<u4"), "every": every, "n_joined": cv.featurizer.n_joined}


def _limits(cv: LatentCV, traj: Trajectory) -> dict | None:
    """Limits of bonds and pairs, which the page checks decoded chains with; for large chains of bonds alone."""
    if cv.n_beads < 2:
        return None
    try:
        limits: Limits = known_limits(cv)
    except InputError:  # a model of an older version
        limits = known_limits(traj)
    bond, *least = limits.least_apart()
    found: dict[str, Any] = {"bond": [bond, limits.longest_bond]}
    found["mean_bond"] = [limits.shortest_mean_bond, limits.longest_mean_bond]
    if cv.n_beads <= MANY:
        found |= {
            "apart": least,
            "mean_apart": list(limits.closest_mean_apart),
            "contacts": limits.closest_contacts,
        }
    return found


def _carried(cv: LatentCV, traj: Trajectory, rows: np.ndarray, room: int) -> dict:
    """Coordinates of evenly spaced frames, as many as there is room for, in the frame that the decoder's have."""
    of_points = evenly(len(rows), max(1, room // -(-8 * cv.n_beads * cv.n_dims // 3)))
    frames = traj.positions[rows[of_points]]
    # Distances cannot distinguish mirror images, so the frame is shown as the one that the decoder gives.
    x = cv.turn(frames) if cv.featurizer.coordinates else map_frames(_in_one_frame, frames)
    step = float(np.abs(x).max()) / _STEPS or 1.0
    return {"points": _packed(of_points, "<u4"), "step": step, "x": _packed(np.rint(x / step), "<i2")}
