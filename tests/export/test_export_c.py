"""The exported C code: the model's numbers, warnings, sanitizers, threads, and what it does with bad input."""

import dataclasses
import functools
import itertools
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import ideal_chains, random_rotations
from engines import float64_values, random_model

import polyvae as pv
from polyvae.export import c, kernel, write

N_BEADS = 7
PALINDROME = np.array([1.0, 3.0, 2.0, 5.0, 2.0, 3.0, 1.0])
# name: featurizer, masses, spaces
KINDS = {
    "axes": (pv.PrincipalAxes(), None, (2, 3)),
    "axes, masses": (pv.PrincipalAxes(), np.arange(1.0, 8.0), (2, 3)),
    "axes, no signs": (pv.PrincipalAxes(sign="none"), None, (2, 3)),
    "axes, mirror": (pv.PrincipalAxes(mirror=True), None, (2, 3)),
    "axes, all": (pv.PrincipalAxes(mirror=True, reversal=True), PALINDROME, (2, 3)),
    "reference": (pv.Reference(), None, (2, 3)),
    "reference, masses": (pv.Reference(), np.arange(1.0, 8.0), (2, 3)),
    "reference, grid": (pv.Reference(pdb_grid=True), np.arange(1.0, 8.0), (2, 3)),
    "reference, turned over": (pv.Reference(planar="3d"), None, (2,)),
    "reference, all": (pv.Reference(mirror=True, reversal=True), PALINDROME, (2, 3)),
    "distances": (pv.PairDistances(), None, (2, 3)),
    "distances, all": (pv.PairDistances(reversal=True, max_pairs=9), None, (2, 3)),
}
CASES = [(name, n_dims) for name, (_, _, spaces) in KINDS.items() for n_dims in spaces]
# Between them these reach every line of the code; the others are for the long tests.
OFTEN = [
    ("axes, all", 2),
    ("axes, masses", 3),
    ("reference, all", 2),
    ("reference, all", 3),
    ("distances, all", 2),
]
MARKED = [pytest.param(*case, marks=() if case in OFTEN else pytest.mark.long) for case in CASES]
SIZES = [(), (5,), (16, 8), (64, 64), (33, 7, 20)]
STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic"]


def model(name: str, n_dims: int, encoder=(16, 8), latent_dim=2, seed=0) -> pv.LatentCV:
    featurizer, masses, _ = KINDS[name]
    chains = ideal_chains(50, N_BEADS, n_dims, seed=3)
    return random_model(pv.Trajectory(chains, masses=masses), featurizer, encoder, latent_dim, seed)


def frames(n: int, n_dims: int) -> np.ndarray:
    """Chains turned at random and far from the origin."""
    rng = np.random.default_rng(5)
    chains = ideal_chains(n, N_BEADS, n_dims, seed=4).astype(np.float64)
    return chains @ random_rotations(n, n_dims, rng) + rng.normal(scale=30, size=(n, 1, n_dims))


def relative_errors(cv, positions, found) -> tuple[float, float]:
    """Largest errors, of values by the largest latent, of gradients by the largest entry of the frame's own."""
    z, gradients = float64_values(cv, positions)
    size = np.abs(gradients).max(axis=(1, 2, 3), keepdims=True)
    return np.abs(found[0] - z).max() / np.abs(z).max(), (np.abs(found[1] - gradients) / size).max()


@functools.cache
def compiled(name: str, n_dims: int, encoder=(16, 8), latent_dim=2):
    """A function from frames to latents and, with `gradients`, gradients, by the compiled code of `model`."""
    code = c.compiled(model(name, n_dims, encoder, latent_dim))

    def evaluate(positions: np.ndarray, gradients: bool = False):
        z, slopes, bad = code.frames(positions, gradients)
        assert bad == -1
        return (z, slopes) if gradients else z

    return evaluate


def require_compiler(name: str) -> str:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    return name


@pytest.fixture(scope="module", autouse=True)
def _a_compiler():
    if kernel.compiler() is None:
        assert os.environ.get("POLYVAE_REQUIRE_ENGINES") != "1", "no C compiler"
        pytest.skip("no C compiler")


@pytest.mark.parametrize(("name", "n_dims"), OFTEN)
def test_equals_jax_in_float64(name, n_dims, tmp_path):
    cv, positions = model(name, n_dims), frames(40, n_dims)
    write(cv, "c", tmp_path / "c")
    errors = relative_errors(cv, positions, c.evaluate(tmp_path / "c", cv, positions))
    assert max(errors) < 1e-12


@pytest.mark.parametrize("encoder", SIZES)
def test_every_size_of_network(encoder):
    cv, positions = model("reference", 3, encoder, latent_dim=3), frames(20, 3)
    found = compiled("reference", 3, encoder, latent_dim=3)(positions, gradients=True)
    assert max(relative_errors(cv, positions, found)) < 1e-12


EACH = [(at, *case, k) for at, case in enumerate(CASES) for k in range(len(SIZES))]


@pytest.mark.long
@pytest.mark.parametrize(  # each case in one size; all of them are slow, by what JAX takes to compile
    ("name", "n_dims", "k"),
    [pytest.param(*each, marks=[pytest.mark.slow] if each[-1] != at % 5 else []) for at, *each in EACH],
)
def test_a_thousand_frames_at_every_size(name, n_dims, k):
    positions, encoder, latent_dim = frames(1000, n_dims), SIZES[k], (2, 1, 4, 2, 3)[k]
    cv = model(name, n_dims, encoder, latent_dim)
    found = compiled(name, n_dims, encoder, latent_dim)(positions, gradients=True)
    value, gradient = relative_errors(cv, positions, found)
    print(f"\n{name:24s} {n_dims}-D {encoder!s:14s} value {value:.1e} gradient {gradient:.1e}", end="")
    assert max(value, gradient) < 1e-12


@pytest.mark.parametrize(("name", "n_dims"), MARKED)
def test_gradients_are_derivatives(name, n_dims):
    """By central differences, without JAX."""
    evaluate = compiled(name, n_dims)
    position = frames(1, n_dims)
    _, gradients = evaluate(position, gradients=True)
    steps = 1e-5 * np.eye(position.size).reshape(-1, *position.shape[1:])
    slopes = (evaluate(position + steps) - evaluate(position - steps)) / 2e-5
    np.testing.assert_allclose(gradients[0], slopes.T.reshape(gradients[0].shape), atol=1e-8)


def test_a_chain_and_its_reversal_have_the_very_same_latents():
    for n_dims, name in itertools.product((2, 3), ("axes, all", "reference, all", "distances, all")):
        evaluate, positions = compiled(name, n_dims), frames(200, n_dims)
        z, gradients = evaluate(positions, gradients=True)
        reversed_z, reversed_gradients = evaluate(positions[:, ::-1], gradients=True)
        np.testing.assert_array_equal(reversed_z, z)
        np.testing.assert_array_equal(reversed_gradients[:, :, ::-1], gradients)


def singular(n_dims: int) -> np.ndarray:
    """Rods along an axis and across, all beads in one place, two beads in one place, and a flat chain."""
    line = np.zeros((N_BEADS, n_dims))
    line[:, 0] = np.arange(N_BEADS)
    tilted = line @ random_rotations(1, n_dims, np.random.default_rng(0))[0]
    chain = ideal_chains(1, N_BEADS, n_dims)[0].astype(float)
    touching, flat = chain.copy(), chain.copy()
    touching[3] = touching[5]
    flat[:, -1] = 0
    return np.stack([line, tilted, np.zeros_like(line), touching, flat])


@pytest.mark.parametrize(("name", "n_dims"), MARKED)
def test_singular_points_are_finite(name, n_dims):
    cv, positions = model(name, n_dims), singular(n_dims)
    z, gradients = compiled(name, n_dims)(positions, gradients=True)
    assert np.isfinite(z).all()
    assert np.isfinite(gradients).all()
    # Two beads in one place and a flat chain are undefined for none of the rules, a rod for few.
    expected = float64_values(cv, positions)
    if "no signs" not in name:
        np.testing.assert_allclose(z[3:], expected[0][3:], rtol=1e-11)
    np.testing.assert_allclose(gradients[3], expected[1][3], atol=1e-11 * np.abs(expected[1][3]).max())
    if "distances" in name:
        np.testing.assert_allclose(z, expected[0], rtol=1e-12)
        np.testing.assert_allclose(gradients, expected[1], atol=1e-12 * np.abs(expected[1]).max())


@pytest.mark.parametrize("n_dims", [2, 3])
def test_made_whole(n_dims):
    """In a triclinic box, at every place, along branched bonds given in any order."""
    bonds = np.array([(4, 2), (2, 0), (2, 1), (4, 5), (6, 5), (3, 6)])
    rng = np.random.default_rng(0)
    cv = model("reference", n_dims)
    cv = dataclasses.replace(cv, template=dataclasses.replace(cv.template, bonds=bonds))
    code = c.compiled(cv)
    box = np.tril([[9.0, 0, 0], [2.0, 8.0, 0], [-3.0, 1.0, 7.0]])[:n_dims, :n_dims].copy()
    for _ in range(50):
        whole = np.zeros((N_BEADS, n_dims))
        for parent, child in ((0, 2), (2, 1), (2, 4), (4, 5), (5, 6), (6, 3)):
            whole[child] = whole[parent] + rng.uniform(-1.5, 1.5, n_dims)
        whole += rng.uniform(-20, 20, n_dims)
        cut = whole - rng.integers(-3, 4, (N_BEADS, n_dims)) @ box
        found, good = code.whole(np.ascontiguousarray(cut), box)
        assert good
        np.testing.assert_allclose(found - found[0], whole - whole[0], atol=1e-12)
        for of_cut, of_whole in zip(code.one(found), code.one(np.ascontiguousarray(whole)), strict=True):
            np.testing.assert_allclose(of_cut, of_whole, atol=1e-12 * np.abs(of_whole).max())


def test_a_bond_of_half_the_box_is_reported():
    code, box = c.compiled(model("reference", 3)), 10.0 * np.eye(3)
    rod = np.zeros((N_BEADS, 3))
    rod[:, 0] = np.arange(N_BEADS)
    assert code.whole(rod, box)[1]
    rod[4:, 0] += 3.6  # a bond of 4.6
    assert not code.whole(rod, box)[1]
    rod[:] = np.nan
    assert not code.whole(rod, box)[1]


def test_positions_that_are_not_finite_are_reported():
    code, positions = c.compiled(model("axes", 3)), frames(5, 3)
    positions[3, 2, 1] = np.nan
    assert code.frames(positions)[2] == 3


def test_threads():
    evaluate, positions = compiled("axes, all", 3, (64, 64)), frames(2000, 3)
    expected = evaluate(positions, gradients=True)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: evaluate(positions, gradients=True), range(16)):
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> list[Path]:
    """A folder of each case with a network and without one."""
    place = tmp_path_factory.mktemp("exports")
    for (name, n_dims), encoder in itertools.product(CASES, ((), (5,))):
        write(model(name, n_dims, encoder), "c", place / f"{name} {n_dims}-D {len(encoder)}")
    return sorted(place.iterdir())


# Flow is followed, and warned of, by gcc with -O1 and by clang without any.
@pytest.mark.long
@pytest.mark.parametrize(
    "command",
    ["gcc -std=c99 -O1", "clang -std=c99 -O0", "g++ -x c++ -std=c++11 -O1", "clang++ -x c++ -std=c++11 -O0"],
)
def test_compiles_without_a_warning(command, exports):
    words = [require_compiler(command.split()[0]), *command.split()[1:]]
    for place in exports:
        arguments = [*words, *STRICT, "-c", "latent_cv.c", "-o", "x.o"]
        done = subprocess.run(arguments, cwd=place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{place.name}: {done.stderr}"
        assert not done.stderr


def test_a_table_that_is_cut_or_changed_does_not_compile(tmp_path):
    cv = model("reference", 3)
    write(cv, "c", tmp_path / "c")
    table = tmp_path / "c" / "latent_cv_weights.h"
    text = table.read_text()
    lines = text.splitlines(keepends=True)
    cuts = ["".join(lines[:k]) for k in range(0, len(lines), 7)] + [text[: len(text) // 3], text.rstrip("\n")[:-1]]
    numbers = next(k for k, line in enumerate(lines) if line.startswith("    ") and line.count(",") > 5)
    cuts.append("".join(lines[:numbers] + lines[numbers + 1 :]))  # a row less
    cuts.append("".join([*lines[:numbers], lines[numbers].replace(", ", " + ", 1), *lines[numbers + 1 :]]))
    for cut in cuts:
        table.write_text(cut)
        with pytest.raises(pv.InputError, match=r"complete|cut short|error"):
            c.evaluate(tmp_path / "c", cv, frames(1, 3))
    table.write_text(text)
    c.evaluate(tmp_path / "c", cv, frames(1, 3))


def test_code_of_another_model_is_refused(tmp_path):
    write(model("reference", 3), "c", tmp_path / "c")
    with pytest.raises(pv.InputError, match="gives 2 latents"):
        c.evaluate(tmp_path / "c", model("reference", 3, latent_dim=3), frames(1, 3))


def test_without_a_compiler(monkeypatch):
    kernel.compiler.cache_clear()
    monkeypatch.setenv("CC", "no-such-compiler")
    try:
        with pytest.raises(pv.InputError, match="CC names no-such-compiler"):
            c.compiled(model("reference", 3))
    finally:
        kernel.compiler.cache_clear()


@pytest.mark.parametrize("command", ["'gcc", "false", "true", "no-such-compiler"])
def test_a_compiler_that_does_not_work_is_none(command, monkeypatch, caplog):
    """It is tried before anything says that the CV runs as C: it may give no library, or one that cannot be
    loaded, as in a folder that may not hold programs."""
    kernel.compiler.cache_clear()
    monkeypatch.setenv("CC", command)
    try:
        assert kernel.compiler() is None
        assert "in JAX" in kernel.where()
        assert c.compiled_if_possible(model("reference", 3)) is None
    finally:
        kernel.compiler.cache_clear()
    assert len([entry for entry in caplog.records if "slower than as C" in entry.message]) == 1


def test_a_model_that_could_overflow_a_stack_is_refused():
    chains = pv.Trajectory(ideal_chains(20, 120, 3))
    with pytest.raises(pv.InputError, match="KiB of the stack"):
        c.compiled(random_model(chains, pv.PairDistances(every=1), encoder=(4,), latent_dim=10))


def test_pieces_without_a_bond_between_them(tmp_path):
    """Each lies in the image nearest to the one before, as the README says; half a box between them is told."""
    cv = model("reference", 3)
    bonds = np.array([(0, 1), (1, 2), (3, 4), (4, 5), (5, 6)])
    cv = dataclasses.replace(cv, template=dataclasses.replace(cv.template, bonds=bonds))
    write(cv, "c", tmp_path / "c")
    assert "leave 2 pieces" in (tmp_path / "c" / "README.md").read_text()
    code, box = c.compiled(cv), 10.0 * np.eye(3)
    whole = np.zeros((N_BEADS, 3))
    whole[:, 0] = [0, 1, 2, 4, 5, 6, 7]
    cut = whole - 10.0 * np.array([0, 0, 0, 1, 1, 1, 1])[:, None]
    found, good = code.whole(cut, box)
    assert good
    np.testing.assert_allclose(found, whole)
    whole[3:, 0] += 2.8  # a step of 4.8
    assert not code.whole(whole, box)[1]


def test_the_readme_builds_a_program(tmp_path):
    cv = model("axes, masses", 3)
    write(cv, "c", tmp_path)
    blocks = (tmp_path / "README.md").read_text().split("```")
    (tmp_path / "main.c").write_text(next(block for block in blocks if block.startswith("c\n"))[2:])
    (command,) = [line for block in blocks for line in block.splitlines() if line.startswith("gcc ")]
    subprocess.run(command.split(), cwd=tmp_path, check=True)
    printed = subprocess.run([tmp_path / "a.out"], capture_output=True, text=True, check=True).stdout.split()
    line = np.zeros((1, N_BEADS, 3))
    line[0, :, 0] = np.arange(N_BEADS)
    z, gradients = compiled("axes, masses", 3)(line, gradients=True)
    assert float(printed[2].rstrip(",")) == pytest.approx(z[0, 0], rel=1e-8)
    assert float(printed[9]) == pytest.approx(gradients[0, 0, 0, 0], rel=1e-7)


def test_odd_folders(tmp_path):
    cv = model("reference", 3)
    place = tmp_path / 'a "quoted" name, with blanks'
    write(cv, "c", place)
    assert max(relative_errors(cv, frames(3, 3), c.evaluate(place, cv, frames(3, 3)))) < 1e-12


FUZZ = r"""
#include "latent_cv.c"
#include <stdio.h>

int main(void)
{
    double x[COORDINATES], z[LATENTS], gradient[LATENTS * COORDINATES], box[DIMS * DIMS], sum = 0;
    int n = 0;
    for (int i = 0; i < DIMS * DIMS; i++)
        box[i] = i % (DIMS + 1) == 0 ? 5 : 0;
    while (fread(x, sizeof(double), COORDINATES, stdin) == COORDINATES) {
        if (latent_cv(x, z, gradient) == 0) {
            for (int i = 0; i < LATENTS * COORDINATES; i++)
                if (!(fabs(gradient[i]) <= DBL_MAX))
                    return 2;
            for (int a = 0; a < LATENTS; a++)
                if (!(fabs(z[a]) <= DBL_MAX))
                    return 3;
        }
        sum += latent_cv(x, z, NULL) + latent_cv_whole(x, box, x);
        n++;
    }
    printf("%d\n", n);
    return sum != sum;
}
"""


NETWORKS = [(), (3,), (16, 8), (40, 9, 12)]


@pytest.mark.long
@pytest.mark.parametrize(  # features and networks are files of their own: each case has one network
    ("name", "n_dims", "k"), [(*case, at % len(NETWORKS)) for at, case in enumerate(CASES)]
)
def test_sanitizers_and_fuzz(name, n_dims, k, tmp_path):
    """Random models on frames of every kind: chains, rods, points, huge, tiny, infinite and NaN."""
    rng = np.random.default_rng(1)
    chains = frames(300, n_dims)
    scales = 10.0 ** rng.integers(-300, 300, size=(200, 1, 1))
    wild = rng.choice([0.0, 1.0, -1.0, 1e308, -1e-308, np.inf, np.nan], size=(300, N_BEADS, n_dims))
    singulars = np.concatenate([singular(n_dims), singular(n_dims) * 1e-160, singular(n_dims) * 1e150])
    positions = np.concatenate([chains, chains[:200] * scales, wild, singulars])
    (tmp_path / "fuzz.c").write_text(FUZZ)
    write(model(name, n_dims, NETWORKS[k], latent_dim=1 + k % 3, seed=k), "c", tmp_path / "c")
    command = ["gcc", "-std=c99", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command += ["-Ic", "fuzz.c", "-o", "fuzz", "-lm"]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run(
        [tmp_path / "fuzz"], input=positions.tobytes(), capture_output=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr.decode()[:2000]
    assert int(done.stdout) == len(positions)


LATENTS_OF_STDIN = """
#include "latent_cv.h"
#include <stdio.h>
int main(void)
{
    double positions[LATENT_CV_BEADS * LATENT_CV_DIMS], z[LATENT_CV_LATENTS];
    while (fread(positions, sizeof positions, 1, stdin) == 1) {
        latent_cv(positions, z, NULL);
        fwrite(z, sizeof z, 1, stdout);
    }
    return 0;
}
"""


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_an_engine_built_with_fast_math_computes_the_same(compiler, tmp_path):
    """Such a build may take a sum and a difference of the same number for nothing."""
    require_compiler(compiler)
    cv, positions = model("reference", 3, (32, 32)), frames(20, 3)
    write(cv, "c", tmp_path / "c")
    (tmp_path / "main.c").write_text(LATENTS_OF_STDIN)
    command = [compiler, "-std=c99", "-O3", "-ffast-math", "-Ic", "main.c", "c/latent_cv.c", "-o", "main", "-lm"]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "main"], input=positions.tobytes(), capture_output=True, check=True)
    z = np.frombuffer(done.stdout).reshape(len(positions), -1)
    assert np.abs(z - float64_values(cv, positions)[0]).max() < 1e-12


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_no_compiler_changes_how_a_process_rounds(compiler):
    """A library of gcc's fast-math has the whole process take the smallest numbers for 0."""
    require_compiler(compiler)
    code = """
import numpy as np
from engines import random_model
import polyvae as pv
from polyvae.export import c
cv = random_model(pv.Trajectory(np.random.default_rng(0).normal(size=(9, 4, 3))), pv.PairDistances(), (8,))
assert np.isfinite(c.compiled(cv).frames(np.ones((1, 4, 3)) * np.arange(4)[:, None])[0]).all()
print(np.array([1e-310]) * 0.5)
"""
    environment = os.environ | {"CC": f"{compiler} -ffast-math", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.stdout == "[5.e-311]\n", done.stderr
