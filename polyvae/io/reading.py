"""Reading trajectories: whole, or in chunks of bounded size."""

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

from polyvae.arguments import whole_number
from polyvae.cluster import check_client, in_order, shared
from polyvae.io.options import ReadOptions, refuse_unknown
from polyvae.io.patterns import Paths, expanded
from polyvae.io.runs import CHUNK_BYTES, RunFiles
from polyvae.trajectory.record import Trajectory
from polyvae.trajectory.stream import Stream, whole


def read(
    paths: Paths,
    *,
    topology: str | os.PathLike | None = None,
    select: str | None = None,
    length_unit: str | None = None,
    start: int = 0,
    stop: int | None = None,
    step: int = 1,
    **options,
) -> Trajectory:
    """Read one trajectory, in one file or in several pieces.

    Args:
        paths: files of the same beads, or patterns such as "run*.xtc" (in natural order: run2 before
            run10); the end of each file ends a segment. npz, XTC, DCD, GRO and LAMMPS dumps are read fast,
            everything else that MDAnalysis reads at its pace. An npz holds one array of positions
            (n_frames, n_beads, n_dims) under any name, or under "arr" or "positions" beside others
            ("time", "box", "weights", "origin", "masses", "bonds", "names", "segments", "length_unit").
        topology: any topology that MDAnalysis reads; gives names, bonds, and the masses that it states. None
            are guessed from names or elements, since a coarse bead "B" is not boron; all are 1 then.
        select: which atoms, in MDAnalysis' selection language; needs a topology.
        length_unit: unit of the numbers in the files: "nm", "angstrom" or "sigma" (reduced). By default
            what the file states (npz; PDB in a line "1 SIGMA = 10 ANGSTROM"), otherwise the format's convention:
            nm in XTC, Å in DCD, sigma in npz and in LAMMPS dumps that state no units.
        start, stop, step: which frames, counted in each file. Frames picked from one segment stay one segment.
        **options: further options, by name:

            - unwrap: "auto" makes molecules whole along their bonds where the file holds a periodic box
              (orthorhombic or triclinic). Each bond must be shorter than half the box, so that a chain of any
              length is put together exactly, through as many images as it takes. Where no bonds are known, the
              beads are taken as one chain in file order, which is logged; if they are not a chain, two
              neighbours sooner or later come about half the box apart, and are refused. Chosen beads of several
              molecules stay in their images, with a warning; a bead whose bonds must be missing is refused.
              Unwrapped coordinates of a LAMMPS dump stay as they are where no bonds are known. False leaves all
              coordinates as they are; True refuses files without a box.
            - per_molecule: each of many like molecules (by bonds, otherwise residues) becomes frames of its own,
              one molecule after another in each segment; `Trajectory.origin` maps back to (frame, molecule).
            - dims: 2 or 3. By default data of three coordinates whose z never varies are 2-D, which is logged.
            - keep_good: take the whole frames of a damaged XTC, DCD or LAMMPS dump, up to the damage, in place
              of refusing it; other formats are refused. Formats have no checksum: most damage to a compressed
              XTC shows, but in a DCD only that to a frame's length and absurd coordinates. Other wrong numbers
              are read as they are. A `stop` at or before the damage leaves it out as well.
            - ignore_times: leave out the times of the frames, which must otherwise increase in each segment.
              Frames whose times leap, such as those that were picked from a run, begin a segment, unless times
              are ignored.
            - dt: time between the frames of a file, in ps (tau in reduced units), in place of times that it
              states.
            - format, topology_format: formats of the files and the topology if their names do not show them:
              MDAnalysis' name of a format, such as "LAMMPSDUMP" or "GRO", or "NPZ".

    Raises:
        FileNotFoundError: for a file that is not there.
        InputError: for a file that cannot be used, and for weights in only some files; the message names
            the file, the frame at fault, and the remedy. A bond of about half the box or more is refused, for its
            molecule cannot be made whole; a chain as a whole may be longer.
    """
    refuse_unknown("read", options)
    places: dict[str, Any] = {"topology": topology, "select": select, "length_unit": length_unit}
    run = RunFiles(paths, ReadOptions(**places, start=start, stop=stop, step=step, **options))
    pieces: list[Trajectory] = []
    for k in range(len(run.paths)):
        blocks = list(run.blocks(k, whole=True))
        pieces.append(run.record(k, blocks, sum(p.n_frames // run.n_molecules for p in pieces)))
    return whole(pieces)


def stream(paths: Paths, *, chunk_bytes: int = CHUNK_BYTES, client: Any = None, **options) -> Stream:
    """A trajectory in chunks of bounded size: for files longer than memory.

    The files are checked, and their frames counted, before this returns. A chunk ends where a file ends;
    with `per_molecule` it holds a few frames of all molecules, one molecule after another. Together the
    chunks are what `read` gives, whatever their size; `Trajectory.continues` marks a chunk that continues the one
    before it. Properties of a file as a whole are found before its first chunk, so that a file that may be planar
    is read twice (unless `dims` is given).

    Args:
        paths: as for `read`.
        chunk_bytes: coordinates (of all atoms in the file) held at once; the peak is a few times that.
        client: a `distributed.Client`. Its workers read the chunks, a few ahead of the one that is wanted,
            and for `project` encode them. Files must be XTC, DCD, GSD or dumps (no gzip), and have the same names
            for all workers; others, and with `keep_good` all, are read in this process.
        **options: those of `read`.

    Returns:
        A `Stream` of `Trajectory` chunks, which can be iterated over again and again.

    Raises:
        As `read`; for a fault within the frames, once the chunk with that frame is reached.
    """
    refuse_unknown("stream", options)
    chunk_bytes, checked = whole_number("chunk_bytes", chunk_bytes, 1), ReadOptions(**options)
    if check_client(client) is not None:  # workers run in folders of their own
        paths = [os.path.abspath(path) for path in expanded(paths)]
    run = RunFiles(paths, checked)
    chunks = functools.partial(run.chunks, chunk_bytes)
    about = f" from {len(run.paths)} file{'s' * (len(run.paths) > 1)}"
    if client is None or not run.seeks or run.keep_good:
        return Stream(chunks, run.n_frames, about)
    elsewhere = functools.partial(_applied, client, run, chunk_bytes)
    return Stream(functools.partial(elsewhere, _itself), run.n_frames, about, elsewhere)


def _applied(client: Any, run: RunFiles, chunk_bytes: int, measure: Callable, *arguments) -> Iterator:
    run.settle()
    what, pieces = shared(client, (run, chunk_bytes, arguments)), run.pieces(chunk_bytes)
    yield from in_order(client, functools.partial(_of_piece, measure), pieces, what)


def _of_piece(measure: Callable, piece: tuple[int, range], what: tuple):
    run, chunk_bytes, arguments = what
    (chunk,) = run.copy().read(*piece, chunk_bytes=chunk_bytes)
    return measure(chunk, run.first_frame(*piece), *arguments)


def _itself(chunk: Trajectory, first_frame: int) -> Trajectory:
    return chunk
