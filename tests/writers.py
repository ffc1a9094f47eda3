"""What a run had in its engine's memory, held against what `pv.read` gives of a file that was written from it."""

import dataclasses
import logging
import re
from pathlib import Path

import numpy as np

import polyvae as pv
from polyvae.errors import InputError

# Words by which a line of the log says that a fact is left out.
WORDS = {
    "length": "unit|length|sigma|angstrom|nm",
    "box": "box|cell|period",
    "periodic": "period|boundar|box|cell",
    "time": "time|dt",
    "ids": r"\bids?\b|order",
    "masses": "mass",
}


@dataclasses.dataclass(frozen=True)
class Truth:
    """A run as its engine, or the arrays that a library wrote, held it.

    Args:
        positions: (n_frames, n_beads, 3), molecules whole.
        unit: of lengths: "nm", "angstrom" or "sigma".
        bonds: (n_bonds, 2) beads from 0.
        box: (n_frames, 3, 3) vectors as rows, or None.
        periodic: which directions are.
        time: (n_frames,) in ps, in tau for "sigma", or None.
        ids: (n_beads,) in the engine, or None.
        masses: (n_beads,), or None.
    """

    positions: np.ndarray
    unit: str
    bonds: np.ndarray
    box: np.ndarray | None = None
    periodic: tuple[bool, ...] = (True, True, True)
    time: np.ndarray | None = None
    ids: np.ndarray | None = None
    masses: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Case:
    """One file of a run.

    Args:
        name: for messages.
        path: the file.
        truth: what the run had.
        states: facts that the file or its topology states, separated by blanks, of `WORDS`.
        options: of `pv.read`.
        tolerance: of positions and boxes in the truth's unit, as the format rounds.
        refused: what the message says where a refusal is right, too; "" where the file must be read.
        hidden: axes of which no reader can know whether they are periodic.
    """

    name: str
    path: Path
    truth: Truth
    states: str
    options: dict = dataclasses.field(default_factory=dict)
    tolerance: float = 1e-3
    refused: str = ""
    hidden: tuple[int, ...] = ()


class _Lines(logging.Handler):
    def __init__(self):
        super().__init__(logging.INFO)
        self.text = ""

    def emit(self, record):
        if "in whichever periodic image" not in (text := record.getMessage()):  # of molecules to one another
            self.text += re.sub(r"\S*/\S*", "", text) + "\n"  # without names of files


def faults(case: Case) -> dict[str, str]:
    """Each fact of a case, with what is wrong about it; "" where it is right, or left out in so many words."""
    log, lines = logging.getLogger("polyvae"), _Lines()
    level = log.level
    log.addHandler(lines)
    log.setLevel(logging.INFO)
    try:
        traj = pv.read(case.path, **case.options)
    except InputError as error:
        good = bool(case.refused) and re.search(case.refused, str(error))
        return dict.fromkeys(["positions", *WORDS], "" if good else f"refused: {error}")
    except Exception as error:  # a traceback is wrong, whatever it is
        return dict.fromkeys(["positions", *WORDS], f"{type(error).__name__}: {error}")
    finally:
        log.removeHandler(lines)
        log.setLevel(level)
    return _compared(case, traj, lines.text)


def _compared(case: Case, traj: pv.Trajectory, text: str) -> dict[str, str]:
    truth, tolerance, states = case.truth, case.tolerance, case.states.split()
    found = {"positions": "", **dict.fromkeys(WORDS, "")}
    factor = 1.0
    if traj.length_unit != truth.unit:
        if "sigma" not in (traj.length_unit, truth.unit):
            factor = {"nm": 10.0, "angstrom": 0.1}[traj.length_unit]
        else:
            found["length"] = f"{traj.length_unit} for {truth.unit}"

    def left_out(fact: str, right) -> str:
        if right is None or fact not in states or re.search(WORDS[fact], text, re.IGNORECASE):
            return ""
        return "left out, and no line says so"

    positions = factor * traj.positions.astype(float)
    found["positions"] = _positions_fault(positions, truth, tolerance)
    if traj.box is None:
        found["box"] = left_out("box", truth.box) if any(truth.periodic) else ""
    elif truth.box is None:
        found["box"] = "a box, and there was none" if np.any(traj.box) and _periodic(traj) else ""
    else:
        kept = np.array(truth.periodic)
        found["box"] = _far(factor * traj.box[:, kept], truth.box[:, kept], tolerance)
    periodic = getattr(traj, "periodic", None)
    if periodic is None:
        found["periodic"] = left_out("periodic", truth.periodic)
    elif any(periodic[k] != truth.periodic[k] for k in range(traj.n_dims) if k not in case.hidden):
        found["periodic"] = f"{periodic} for {truth.periodic}"
    if traj.time is None:
        found["time"] = left_out("time", truth.time)
    else:
        found["time"] = "a time, and there was none" if truth.time is None else _far(traj.time, truth.time, 1e-4)
    ids = getattr(traj, "ids", None)
    if ids is None:
        found["ids"] = left_out("ids", truth.ids)
    elif truth.ids is not None and not np.array_equal(ids, truth.ids):
        found["ids"] = f"{ids} for {truth.ids}"
    if (traj.masses == 1).all():
        found["masses"] = left_out("masses", truth.masses)
    else:
        found["masses"] = "masses from nowhere" if truth.masses is None else _far(traj.masses, truth.masses, 1e-3)
    return found


def _periodic(traj: pv.Trajectory) -> bool:
    periodic = getattr(traj, "periodic", None)
    return periodic is None or any(periodic)


def _far(found: np.ndarray, right: np.ndarray, tolerance: float) -> str:
    found, right = np.asarray(found, float), np.asarray(right, float)
    if found.shape != right.shape:
        return f"shape {found.shape} for {right.shape}"
    off = np.abs(found - right)
    if off.size == 0 or (off <= tolerance + 1e-6 * np.abs(right)).all():
        return ""
    at = np.unravel_index(np.nanargmax(off), off.shape) if np.isfinite(off).any() else (0,) * off.ndim
    return f"{found[at]:.4g} for {right[at]:.4g}"


def molecules(n_beads: int, bonds: np.ndarray) -> np.ndarray:
    """The first bead of the molecule of each bead."""
    label = np.arange(n_beads)
    for _ in range(n_beads):
        before = label.copy()
        for a, b in bonds:
            label[a] = label[b] = min(label[a], label[b])
        if (label == before).all():
            return label
    raise AssertionError("no labels that stay")


def _positions_fault(found: np.ndarray, truth: Truth, tolerance: float) -> str:
    """Molecules whole and where they were, up to a translation by vectors of the periodic box."""
    right = truth.positions
    if found.shape[:2] != right.shape[:2]:
        return f"shape {found.shape} for {right.shape}"
    if found.shape[2] == 2:
        if np.ptp(right[..., 2]) > tolerance:
            return "two dimensions for three"
        found = np.concatenate([found, right[..., 2:]], axis=2)
    label = molecules(right.shape[1], truth.bonds)
    shift = found - right
    apart = np.abs(shift - shift[:, label]).max()
    if apart > 2 * tolerance:
        return f"beads of a molecule off by {apart:.3g}"
    if truth.box is not None and any(truth.periodic):
        vectors = truth.box[:, np.array(truth.periodic)]
        images = np.round(shift @ np.linalg.pinv(vectors))
        shift = shift - images @ vectors
    off = np.abs(shift).max()
    return f"molecules off by {off:.3g}, which is no vector of the box" if off > 10 * tolerance else ""


def whole(positions: np.ndarray, bonds: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Molecules put together along bonds that are given in order, each bond the image nearest to zero."""
    result = np.array(positions, float)
    for a, b in bonds:
        step = result[:, b] - result[:, a]
        inside = np.einsum("ni,nij->nj", step, np.linalg.inv(box))
        result[:, b] = result[:, a] + np.einsum("ni,nij->nj", inside - np.round(inside), box)
    return result


def wrapped(positions: np.ndarray, box: np.ndarray, periodic=(True, True, True)) -> tuple[np.ndarray, np.ndarray]:
    """Positions put back into the box that begins at the origin, and the images that they were in."""
    images = np.floor(np.einsum("nbi,nij->nbj", positions, np.linalg.inv(box)))
    images[:, :, ~np.array(periodic)] = 0
    return positions - images @ box, images


def chains(n_frames: int = 5, n_chains: int = 2, length: int = 8, bond: float = 0.3, seed: int = 0) -> Truth:
    """Random chains in nm, in a tilted box that varies and is a few bonds wide; times from 10 ps on."""
    rng, n = np.random.default_rng(seed), n_chains * length
    steps = rng.normal(size=(n_frames, n_chains, length, 3))
    steps *= bond / np.linalg.norm(steps, axis=3, keepdims=True)
    steps[:, :, 0] = rng.uniform(0, 1.4, size=(n_frames, n_chains, 3))
    box = np.array([[1.5, 0, 0], [0.3, 1.4, 0], [-0.2, 0.4, 1.6]])
    bonds = np.arange(n).reshape(n_chains, length)
    bonds = np.stack([bonds[:, :-1].ravel(), bonds[:, 1:].ravel()], axis=1)
    return Truth(
        np.cumsum(steps, axis=2).reshape(n_frames, n, 3),
        "nm",
        bonds,
        box * (1 + 0.01 * np.arange(n_frames))[:, None, None],
        time=10 + 0.5 * np.arange(n_frames),
        ids=1 + np.arange(n),
        masses=np.tile([12.0, 30.0], n // 2),
    )


def write_pdb(path: Path, truth: Truth) -> Path:
    """A topology: names and bonds, and no box."""
    label = molecules(truth.positions.shape[1], truth.bonds)
    _, chain = np.unique(label, return_inverse=True)
    with path.open("w") as file:
        for k, c in enumerate(chain):
            place = f"{0:8.3f}{0:8.3f}{k:8.3f}"
            file.write(f"ATOM  {k + 1:5d}  B   MOL {'ABCDEFGH'[c]}{c + 1:4d}    {place}  1.00  0.00\n")
        file.writelines(f"CONECT{a + 1:5d}{b + 1:5d}\n" for a, b in truth.bonds)
        file.write("END\n")
    return path
