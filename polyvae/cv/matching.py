"""Data that a model is applied to: the beads that it was trained on, in its own order."""

import logging
from collections.abc import Callable, Sequence

import numpy as np

from polyvae.errors import InputError
from polyvae.trajectory.record import Trajectory, bonds_of, chain_bonds, is_linear

log = logging.getLogger(__name__)

FAR_OFF = 3.0  # times the model's bonds: no chain stretches so far


def match_beads(data: Trajectory, template: Trajectory, report: Callable[[str], None]) -> Trajectory:
    """Put the beads of the data, in the model's unit, into the order of the model's template frame.

    `report` is called with a warning where names differ or beads are moved. `InputError` for another number of
    beads or dimensions, or an order that repeated names leave open.
    """
    if (data.n_beads, data.n_dims) != (template.n_beads, template.n_dims):
        trained = ""
        if template.selection:
            trained = f" ({template.selection})"
        raise InputError(
            f"the model takes {template.n_beads} beads in {template.n_dims}-D; the data hold {data.n_beads} beads "
            f"in {data.n_dims}-D. Select the beads that the model was trained on{trained}"
        )
    data = _in_order_of(template, data, report)
    bonds = template.bonds
    if bonds is None:
        bonds = chain_bonds(template.n_beads)
    if len(data) and len(bonds):
        own, other = (_mean_bond(traj.positions[0], bonds) for traj in (template, data))
        if own > 0 and not 1 / FAR_OFF < other / own < FAR_OFF:
            log.warning("bonds are %.2g times as long as the model's; is the length unit right?", other / own)
    return data


def _in_order_of(template: Trajectory, data: Trajectory, report: Callable[[str], None]) -> Trajectory:
    """The data with their beads in the order of the template, by names or, where there are none, by ids."""
    kind, own, other = "names", template.names, data.names
    if own is None or other is None:
        if template.ids is None or data.ids is None:
            return data
        kind, own, other = "ids", tuple(template.ids), tuple(data.ids)
    if own == other:
        return data
    if sorted(own) != sorted(other):
        if kind == "names":
            report(f"the names of beads, {_first(other)}, are not those of the model, {_first(own)}")
        return data
    if len(set(own)) == len(own):
        place = {name: k for k, name in enumerate(other)}
        order = np.array([place[name] for name in own])
    elif own == other[::-1] and is_linear(bonds_of(data), len(own)):
        order = np.arange(len(own))[::-1]
    else:
        raise InputError(
            f"the names of beads, {_first(other)}, are those of the model, {_first(own)}, in another order, and "
            f"some occur twice; give the beads in the order of the model"
        )
    report(f"beads come in another order than in the model, and are put into its order by their {kind}")
    return data.take_beads(order)


def _first(names: Sequence) -> str:
    """The first names, in one line."""
    text = " ".join(map(str, names[:8]))
    if len(names) > 8:
        text += " ..."
    return text


def _mean_bond(positions: np.ndarray, bonds: np.ndarray) -> float:
    return float(np.linalg.norm(positions[bonds[:, 1]] - positions[bonds[:, 0]], axis=1).mean())
