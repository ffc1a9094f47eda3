"""Every public function gives the same numbers and files in a process that is switched to double precision."""

import contextlib
import dataclasses
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

# A pure function of one frame follows the type of its argument, and stands in a program of the caller's.
CLOSE = 2e-5
CLOCKS = ("movie", "progress_bar")  # calls that are about time, or whose pictures are
FILES = (".npz", ".xtc", ".csv", ".safetensors", ".txt", ".dat", ".c", ".h", ".inp", ".json", "COLVAR")


def numbers(value) -> list[np.ndarray]:
    """All numbers in a result, in order: of arrays, records, models and trajectories."""
    if hasattr(value, "__array__") or isinstance(value, (bool, int, float)):
        array = np.asarray(value)
        return [array] if array.dtype.kind in "biuf" else []
    if isinstance(value, dict):
        parts = dict(sorted(value.items()))
    elif dataclasses.is_dataclass(value):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, (list, tuple)):
        parts = dict(enumerate(value))
    else:
        parts = {}
    timeless = (part for name, part in parts.items() if "second" not in str(name))
    return [array for part in timeless for array in numbers(part)]


def content(path: Path) -> list[np.ndarray]:
    """The bytes of a file, of npz and JSON the numbers."""
    if path.suffix == ".json":
        return numbers(json.loads(path.read_text()))
    if path.suffix != ".npz":
        return [np.frombuffer(path.read_bytes(), np.uint8)]
    with np.load(path, allow_pickle=False) as file:
        return numbers({name: file[name] for name in file.files})


def results() -> dict[str, list[np.ndarray]]:
    """The numbers of each call that works, and of each file that they write."""
    from conftest import ideal_chains
    from test_wrong_types import ALL, known_in

    import polyvae as pv
    from polyvae.app import cli

    traj = pv.Trajectory(ideal_chains(600, 8, 3), time=0.5 * np.arange(600), names=["B"] * 8)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        known = known_in(Path(folder), traj, pv.fit(traj, epochs=2, batch_size=64, encoder=(16,), decoder=(32,)))
        for name, call in ALL.items():
            if call.given is None or name in CLOCKS:
                continue
            owner = {"k": known} if getattr(call.function, "__name__", "") == "<lambda>" else {}
            value = call.function(**owner, **call.given(known))
            found[name] = numbers(value)
            if name == "chain_energy":
                found[f"what {name} returns"] = numbers(value(traj.positions[0]))
            if name == "fit_generator":
                known.cv = value  # for `sample`
        with pytest.raises(SystemExit, match="0"):
            cli.main(
                ["fit", str(known.run), "--epochs", "1", "--out", str(known.run.with_name("line.safetensors"))]
            )
        for path in sorted(Path(folder).rglob("*")):
            if path.name.endswith(FILES):
                found[str(path.relative_to(folder))] = content(path)
    return found


def faults() -> list[str]:
    """What differs in this process, which is switched to double precision, from one that is not."""
    import jax

    double = results()
    jax.config.update("jax_enable_x64", False)
    single, found = results(), []
    if set(single) != set(double):
        found.append(f"only once: {sorted(set(single) ^ set(double))}")
    for name in set(single) & set(double):
        try:
            for one, other in zip(single[name], double[name], strict=True):
                np.testing.assert_allclose(other, one, rtol=CLOSE, atol=CLOSE)
        except (AssertionError, ValueError) as error:
            found.append(f"{name}: {' '.join(str(error).split())[:200]}")
    return found


@pytest.mark.long
def test_results_do_not_depend_on_the_switch():
    told = os.environ | {"JAX_ENABLE_X64": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, __file__], env=told, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


if __name__ == "__main__":
    with contextlib.redirect_stdout(io.StringIO()):
        lines = faults()
    print(*lines, sep="\n")
    sys.exit(bool(lines))
