"""Files that GROMACS and OpenMM write of their own runs, against what the runs had."""

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from engines import require
from writers import Case, Truth, faults, whole

pytestmark = pytest.mark.long

N_CHAINS, LENGTH, N_FRAMES = 3, 8, 6
BOXES = {
    "cuboid": np.diag([2.2, 2.4, 2.1]),
    "dodecahedron": 2.5 * np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, np.sqrt(0.5)]]),
    "tilted": np.array([[2.3, 0, 0], [0.4, 2.2, 0], [-0.5, 0.7, 2.1]]),
}
BONDS = np.arange(N_CHAINS * LENGTH).reshape(N_CHAINS, LENGTH)
BONDS = np.stack([BONDS[:, :-1].ravel(), BONDS[:, 1:].ravel()], axis=1)
MASSES = np.tile([45.0, 72.0], N_CHAINS * LENGTH // 2)
TOP = """[ defaults ]
1 1 no
[ atomtypes ]
P 45.0 0.0 A 1e-4 1e-8
Q 72.0 0.0 A 1e-4 1e-8
[ moleculetype ]
CHAIN 2
[ atoms ]
{atoms}[ bonds ]
{bonds}[ system ]
chains
[ molecules ]
CHAIN {n}
"""
MDP = """integrator = md
dt = 0.004
nsteps = 100
nstxout = 20
nstvout = 10
nstxout-compressed = 20
compressed-x-precision = 20000
nstlist = 10
rlist = 0.8
rvdw = 0.6
rcoulomb = 0.6
tcoupl = V-rescale
tc-grps = System
tau-t = 0.5
ref-t = 300
gen-vel = yes
gen-temp = 300
gen-seed = 7
pcoupl = C-rescale
pcoupltype = isotropic
tau-p = 0.5
compressibility = 4e-4
ref-p = 100
"""
# Files of GROMACS: name, the tool's arguments, facts that the file states, tolerance in nm.
GROMACS = {
    "xtc": ("run.xtc", None, "length box time", 1e-3),
    "trr": ("run.trr", None, "length box time", 1e-4),
    "atoms wrapped": ("atom.xtc", "-f run.trr -pbc atom", "length box time", 1e-3),
    "whole": ("whole.xtc", "-f run.trr -pbc whole", "length box time", 1e-3),
    "molecules wrapped": ("mol.trr", "-f run.trr -pbc mol -ur compact", "length box time", 1e-4),
    "coarse": ("coarse.xtc", "-f run.xtc -ndec 2", "length box time", 0.01),
    "later": ("later.xtc", "-f run.trr -t0 1000 -pbc atom", "length box", 1e-3),
    "gro": ("run.gro", "-f run.trr -pbc atom", "length box time", 1e-3),
    "gro whole": ("whole.gro", "-f run.trr -pbc whole", "length box time", 1e-3),
    "pdb": ("run.pdb", "-f run.trr -pbc atom", "length box", 1e-3),
}
OPENMM = {
    "dcd": ("run.dcd", "length box time"),
    "dcd unwrapped": ("free.dcd", "length box time"),
    "xtc": ("run.xtc", "length box time"),
    "pdb": ("run.pdb", "length box"),
}  # fmt: skip


@functools.cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="polyvae-writers-"))


@pytest.fixture(scope="module", autouse=True)
def _tally():
    cells: list[bool] = []
    _tally.cells = cells
    yield
    print(f"\nGROMACS and OpenMM: {len(cells)} cells, {sum(cells)} right")
    shutil.rmtree(_folder(), ignore_errors=True)


def _start() -> np.ndarray:
    """Zigzag chains in nm, (n, 3), that cross the faces."""
    k = np.arange(LENGTH)
    chain = np.stack([0.28 * k, 0.11 * (k % 2), 0.13 * (k // 2 % 2)], axis=1)
    corners = np.array([[0.3, 0.5, 0.3], [1.7, 0.8, 1.0], [1.0, 1.2, 1.8]])
    return np.concatenate([np.roll(chain, c, axis=1) + corners[c] for c in range(N_CHAINS)])


def _gmx(folder: Path, command: str, answer: str = "0\n") -> None:
    done = subprocess.run(
        ["gmx", *command.split()], cwd=folder, input=answer, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@functools.cache
def gromacs(name: str) -> tuple[Path, Truth]:
    """A run in one of the boxes, its files, and what it had: from its TRR, which keeps all digits."""
    from MDAnalysis.lib.formats.libmdaxdr import TRRFile

    folder = _folder() / f"gromacs_{name}"
    folder.mkdir(exist_ok=True)
    atoms = "".join(f"{k + 1} {'PQ'[k % 2]} 1 MOL {'PQ'[k % 2]} {k + 1}\n" for k in range(LENGTH))
    bonds = "".join(f"{k} {k + 1} 1 0.33 8000\n" for k in range(1, LENGTH))
    (folder / "top.top").write_text(TOP.format(atoms=atoms, bonds=bonds, n=N_CHAINS))
    (folder / "run.mdp").write_text(MDP)
    lines = [
        f"{k // LENGTH + 1:5d}MOL  {'PQ'[k % 2]:>5s}{k + 1:5d}{x:8.3f}{y:8.3f}{z:8.3f}"
        for k, (x, y, z) in enumerate(_start())
    ]
    a, b, c = BOXES[name]
    box = f"{a[0]} {b[1]} {c[2]} {a[1]} {a[2]} {b[0]} {b[2]} {c[0]} {c[1]}"
    (folder / "start.gro").write_text("\n".join(["chains", str(len(lines)), *lines, box, ""]))
    _gmx(folder, "grompp -f run.mdp -c start.gro -p top.top -o run.tpr -maxwarn 5")
    _gmx(folder, "mdrun -deffnm run -ntmpi 1 -ntomp 1 -nb cpu")
    for file, arguments, _, _ in GROMACS.values():
        if arguments is not None:
            _gmx(folder, f"trjconv -s run.tpr {arguments} -o {file}")
    with TRRFile(str(folder / "run.trr")) as file:
        frames = [frame for frame in file if frame.hasx]
    x, boxes = np.array([f.x for f in frames], float), np.array([f.box for f in frames], float)
    assert len(frames) == N_FRAMES
    time = 0.004 * 20 * np.arange(N_FRAMES)
    x = whole(x, BONDS, boxes)
    return folder, Truth(x, "nm", BONDS, boxes, time=time, ids=1 + np.arange(x.shape[1]), masses=MASSES)


@functools.cache
def openmm(name: str) -> tuple[Path, Truth]:
    """A run of OpenMM in one of the boxes, which grows in x, its files, and what it had."""
    import openmm
    from openmm import app, unit

    folder = _folder() / f"openmm_{name}"
    folder.mkdir(exist_ok=True)
    system, topology = openmm.System(), app.Topology()
    bonds = openmm.HarmonicBondForce()
    bonds.setUsesPeriodicBoundaryConditions(True)
    atoms = []
    for _ in range(N_CHAINS):
        residue = topology.addResidue("MOL", topology.addChain())
        atoms += [topology.addAtom("PQ"[k % 2], None, residue) for k in range(LENGTH)]
    for mass in MASSES:
        system.addParticle(mass)
    for a, b in BONDS:
        bonds.addBond(int(a), int(b), 0.33, 8000)
        topology.addBond(atoms[a], atoms[b])
    system.addForce(bonds)
    system.setDefaultPeriodicBoxVectors(*BOXES[name])
    topology.setPeriodicBoxVectors(BOXES[name] * unit.nanometer)
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.004)
    integrator.setRandomNumberSeed(7)
    simulation = app.Simulation(topology, system, integrator, openmm.Platform.getPlatformByName("Reference"))
    simulation.context.setPositions(_start())
    simulation.reporters = [
        app.DCDReporter(str(folder / "run.dcd"), 10, enforcePeriodicBox=True),
        app.DCDReporter(str(folder / "free.dcd"), 10, enforcePeriodicBox=False),
        app.XTCReporter(str(folder / "run.xtc"), 10, enforcePeriodicBox=True),
        app.PDBReporter(str(folder / "run.pdb"), 10, enforcePeriodicBox=True),
    ]
    with (folder / "top.pdb").open("w") as file:
        app.PDBFile.writeFile(topology, _start() * unit.nanometer, file)
    frames, boxes = [], []
    for _ in range(N_FRAMES):
        simulation.step(10)
        state = simulation.context.getState(getPositions=True)
        frames.append(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
        boxes.append(state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer))
    del simulation
    time = 0.04 * (1 + np.arange(N_FRAMES))
    x = np.array(frames)
    return folder, Truth(x, "nm", BONDS, np.array(boxes), time=time, ids=1 + np.arange(x.shape[1]), masses=MASSES)


def case(engine: str, name: str, kind: str) -> Case:
    """One file of one run."""
    if engine == "gromacs":
        folder, truth = gromacs(name)
        file, arguments, states, tolerance = GROMACS[kind]
        topology = {} if kind == "gro" else {"topology": folder / "run.tpr"}
        states += " masses" if topology else ""
        if "-t0" in (arguments or ""):
            truth = Truth(**{**vars(truth), "time": truth.time + 1000})
        if kind == "gro":
            # Nothing there joins beads: all of a file is one chain, and that is no fault.
            topology = {"topology": folder / "run.tpr"}
        return Case(kind, folder / file, truth, states, topology, tolerance)
    folder, truth = openmm(name)
    file, states = OPENMM[kind]
    return Case(kind, folder / file, truth, states, {"topology": folder / "top.pdb"}, 2e-3)


def all_cases() -> list[tuple[str, str, str]]:
    """Engines, boxes and files."""
    return [
        (engine, box, kind)
        for engine, kinds in (("gromacs", GROMACS), ("openmm", OPENMM))
        for box in BOXES
        for kind in kinds
    ]


@pytest.mark.parametrize(("engine", "name", "kind"), all_cases())
def test_engine(engine, name, kind):
    if engine == "openmm":
        require("openmm")
    elif shutil.which("gmx") is None:
        pytest.skip("GROMACS is not installed: apt-get install gromacs")
    found = faults(case(engine, name, kind))
    _tally.cells += [not text for text in found.values()]
    assert not any(found.values()), {fact: text for fact, text in found.items() if text}
