"""A report contradicts nothing: each number of each sentence is computed again from scores.json."""

import json
import re

import mdtraj
import numpy as np
import pytest
from conftest import DATA

import polyvae as pv
from polyvae.app import cli
from polyvae.export.grid_bias import bias_width, spread_of
from polyvae.export.steepness import BONDS, mean_bond


def hinged(n_frames: int, n_beads: int, n_switches: int, seed: int) -> np.ndarray:
    """Chains that are straight or bent by 100 degrees in the middle, (n_frames, n_beads, 3) in nm."""
    rng = np.random.default_rng(seed)
    bent = np.zeros(n_frames)
    for at in np.sort(rng.choice(np.arange(1, n_frames), n_switches, replace=False)):
        bent[at:] = 1 - bent[at:]
    angle = np.deg2rad(100) * bent + rng.normal(0, 0.12, n_frames)
    along = np.arange(n_beads) - n_beads // 2
    turned = np.where(along > 0, angle[:, None], 0.0)
    x = 0.38 * np.stack([along * np.cos(turned), along * np.sin(turned), 0 * turned], axis=2)
    return (x + rng.normal(0, 0.02, x.shape)).astype(np.float32)


def protein(folder, n_frames=1500, n_switches=80) -> list[str]:
    """A run of CA atoms with two basins."""
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(10):
        topology.add_atom("CA", mdtraj.element.carbon, topology.add_residue("ALA", chain))
    x = hinged(n_frames, 10, n_switches, seed=0)
    run = mdtraj.Trajectory(x, topology, time=2.0 * np.arange(n_frames))
    run[0].save_pdb(str(folder / "ca.pdb"))
    run.save_xtc(str(folder / "ca.xtc"))
    return [str(folder / "ca.xtc"), "--top", str(folder / "ca.pdb"), "--unit", "nm"]


def melt(folder) -> list[str]:
    """30 molecules of 5 beads, 20 frames each."""
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(20, 30, 5, 3))
    x = np.cumsum(0.4 * steps / np.linalg.norm(steps, axis=-1, keepdims=True), axis=2)
    x = (x + 3 * rng.uniform(size=(30, 1, 3))).reshape(20, 150, 3)
    bonds = [[5 * m + k, 5 * m + k + 1] for m in range(30) for k in range(4)]
    np.savez(folder / "melt.npz", arr=x.astype(np.float32), bonds=bonds, time=np.arange(20.0))
    return [str(folder / "melt.npz"), "--per-molecule"]


def transition(folder) -> list[str]:
    """98 frames of one transition."""
    return protein(folder, n_frames=98, n_switches=1)


def readme(_) -> list[str]:
    return [str(DATA / "chain2d.npz")]


def words_of(page: str) -> list[str]:
    """The sentences and clauses of the verdict and of the section on states."""
    parts = re.findall(r'<section class="verdict.*?</section>|<h2>States</h2>.*?</section>', page, re.DOTALL)
    blocks = [text for part in parts for text in re.findall(r"<(?:p|dd)\b[^>]*>(.*?)</(?:p|dd)>", part, re.DOTALL)]
    blocks = [re.sub(r"<svg.*?</svg>|<b>.*?</b>|<[^>]*>", " ", text, flags=re.DOTALL) for text in blocks]
    clauses = [clause for text in blocks for clause in re.split(r"; |: |\.\s", " ".join(text.split()) + " ")]
    clauses = [re.sub(r"^(good|fair|poor|not judged)\s*", "", clause.strip(" .")) for clause in clauses]
    return [clause[:1].lower() + clause[1:] for clause in clauses if clause]


def numbers_in(text: str) -> list[str]:
    text = re.sub(r"\bz\d", "z", text.replace("\u2212", "-"))
    return [n.replace(",", "") for n in re.findall(r"\d[\d,]*\.?\d*%?", text)]


class Facts:
    """What each sentence says, from scores.json, and from the model for the way that a bias moves the atoms."""

    def __init__(self, scores: dict, moved: list[float]):
        self.scores, self.states, self.all = scores, scores["states"], scores["frames"]["all"]
        held = scores["frames"].get("validation", self.all)
        self.n, self.pieces = scores["data"]["n_frames"], scores["data"]["n_segments"]
        step, active = scores["kinetics"]["time_step"] or 1.0, np.array(self.all["latent_std"]) > 0.1
        times = [t for t, varies in zip(self.all["autocorrelation_time"], active, strict=True) if varies]
        known = bool(times) and None not in times
        self.slowest = max(1.0, max(times) / step) if known else None
        self.worth = self.n / self.slowest if known else self.pieces if self.pieces > 1 else None
        few = self.states["states"]
        crossings = sum(state["entries"] for state in few)
        n, z0 = len(few), self.all["autocorrelation_time"][0]
        lag = scores["model"]["settings"]["lag"]
        self.said = {
            r"it was trained on shapes, not on what is slow": lag == 0 and [],
            r"z0 has an autocorrelation time of": z0 is not None and [z0],
            r"z0 and z1 tell \d+ states apart": n > 1 and [n, *(s["share"] for s in few)],
            r"too little to tell states": n == 0 and [],
            r"the run shows one state": n == 1 and self.states["withheld"] is None and [],
            r"one state": n == 1 and [],
            r"no barrier of 1 kT": n == 1 and [1],
            r"the run goes \d+ times between the states": n > 1 and crossings >= 10 and [crossings],
            r"the run goes only \d+ times? between the": n > 1 and 0 < crossings < 10 and [crossings, n],
            r"the run never goes between": n > 1 and crossings == 0 and [n],
            r"it explains": [held["fve"]],
            r"[\d,]+ frames to judge by": self.n >= 500 and [self.n],
            r"\d+ frames are too few to judge by": self.n < 500 and [self.n],
            r"the run holds only": self.worth is not None and self.worth < 30 and [self.worth],
            r"the run holds": self.worth is not None and self.worth >= 30 and [self.worth],
            r"the frames are worth [\d.,]+ independent ones, and it takes": self.worth is not None
            and self.worth < 30 and [self.worth, 30],
            r"the frames are worth": self.worth is not None and [self.worth],
            r"the slowest latent has an autocorrelation time": self.slowest is not None and [self.slowest],
            r"each piece counts as one": self.slowest is None and self.pieces > 1 and [],
            r"the run is too short to hold independent frames": self.worth is None and [],
            r"the run is too short to tell": z0 is None and [],
            r"the atoms move [\d.]+ \w+ for a width of a bias on z, and": moved,
            r"the atoms move": moved[:1],
            r"it does not jump": scores["alignment"]["n_jumps"] == 0 and [],
            r"the CV jumps at": [scores["alignment"]["n_jumps"], scores["alignment"]["n_steps"]],
            r"all latents are inactive": not active.any() and [],
            r"\d of \d latents vary": [int(active.sum()), len(active)],
            r"generated .* (lie|are) within": self.floors() <= 2 and [2],
            r"generated .* (lie|are) beyond": self.floors() > 2 and [2],
            r"no free energy": self.states["withheld"] is not None and [],
            r"mean first passage is": any(s["first_passage"] for s in few) and [],
            r"frames closer in time": lag == 0 and max(1, self.n / self.pieces) >= 500 and [],
            r"500 frames or more in a row": lag == 0 and self.n / self.pieces < 500
            and [500, self.n / self.pieces],
            r"500 frames or more$": self.n < 500 and [500],
        }  # fmt: skip

    def floors(self) -> float:
        apart = self.scores["generated"]
        keys = [key for key in ("bond", "rg", "end_to_end", "pairs") if apart[key] is not None]
        return max(apart[key] / apart["noise_floor"][key] for key in keys)

    def check(self, clause: str) -> None:
        for pattern, values in self.said.items():
            if re.match(pattern, clause):
                assert values is not False, f"not so: {clause}"
                numbers = numbers_in(clause)
                assert len(numbers) == len(values), clause
                for text, value in zip(numbers, values, strict=True):
                    shown = float(text.rstrip("%")) * (0.01 if text.endswith("%") else 1)
                    unit = 0.01 if text.endswith("%") else 1.0
                    assert shown == pytest.approx(value, abs=0.51 * unit, rel=0.005), clause
                return
        assert not numbers_in(clause), f"no number of scores.json is known for: {clause}"


def ways_of_the_atoms(out) -> list[float]:
    """The least way for a width of a bias on an active latent, and the way that a time step needs."""
    cv, z = pv.load(out / "model.safetensors"), np.load(out / "latent.npz")["z"]
    widths = bias_width(spread_of(z[:, list(cv.active_latents)].astype(np.float64), np.ones(len(z))))
    slopes = np.array(cv.record.slopes.steep)[list(cv.active_latents)]
    return [float((widths / slopes).min()), mean_bond(cv) / BONDS]


@pytest.mark.long
@pytest.mark.parametrize("data", [readme, protein, melt, transition])
def test_every_sentence_is_what_scores_hold(data, tmp_path, capfd):
    out = tmp_path / "out"
    short = ["--quick", "--epochs", "8", "--no-generator"]
    with pytest.raises(SystemExit, match="0"):
        cli.main(["run", *data(tmp_path), "--out", str(out), *short])
    notes = capfd.readouterr().err
    scores, page = json.loads((out / "scores.json").read_text()), (out / "report.html").read_text()
    facts, clauses = Facts(scores, ways_of_the_atoms(out)), words_of(page)
    assert len(clauses) > 8
    for clause in clauses:
        facts.check(clause)
    assert "as good as independent" not in notes + page
    states = scores["states"]
    assert states["crossings"] == sum(state["entries"] for state in states["states"])
    assert states["n_independent"] == (None if facts.worth is None else pytest.approx(facts.worth))
    assert (out / "figures" / "11_free_energy.png").exists() == (states["withheld"] is None)
    medoids = [f"{state['name']}.pdb" for state in states["states"]]
    assert sorted(path.name for path in out.glob("states/*")) == sorted(medoids)
    timescale, step = scores["frames"]["all"]["timescale"], scores["kinetics"]["time_step"] or 1.0
    assert timescale is None or 4 * timescale <= scores["data"]["n_frames"] * step
    if data is transition:
        assert states["withheld"] is not None
        assert all(state["energy"] is None for state in states["states"])
    if data is protein:
        assert len(states["states"]) == 2
        assert states["crossings"] == pytest.approx(80, abs=4)
    if data is melt:
        assert "closer in time" not in page
