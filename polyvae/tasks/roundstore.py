"""The folder of rounds: models, runs and records, each made once and read again by a later call."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from polyvae.cv.latent import LatentCV, load_cv
from polyvae.engines.runs import REST, Run, save_run, saved_run
from polyvae.errors import InputError
from polyvae.files import locked, write_json
from polyvae.records import json_object
from polyvae.tasks.rounds import Round, keep_last_snapshot

TRIES = 3  # of a short unbiased run, before the others must do
MODEL, SUMMARY, SETTINGS = "model.safetensors", "round.json", "adapt.json"
CHECK = "check.json"  # comparison with the CV of the unbiased runs of a round, if this may be the last


class Store:
    """The folder of rounds."""

    def __init__(self, folder: Path):
        self.folder = folder

    @contextlib.contextmanager
    def opened(self, settings: Mapping[str, Any], engine: Mapping[str, Any]) -> Iterator["Store"]:
        """The folder, made where it does not exist and locked, for rounds of these settings.

        `settings` decide the results, `engine` the runs; the latter may change until there is a run. `InputError`
        for a folder that holds something else or rounds of other settings, or that another job uses.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder):
            path = self.folder / SETTINGS
            wanted = json.loads(json.dumps({**settings, "engine": engine}))
            if not path.exists():
                self._check_empty()
            else:
                self._check_same(_json_of(path), wanted)
            write_json(path, wanted)
            for left in self.folder.glob("round_*/**/.*"):  # of a call that was killed as it wrote
                if left.is_file():
                    left.unlink()
            yield self

    def _check_empty(self) -> None:
        if there := sorted(path.name for path in self.folder.iterdir() if path.name[0] != "."):
            raise InputError(
                f"{self.folder} must hold rounds with their {SETTINGS}, or nothing; it has {there[0]}"
            )

    def _check_same(self, there: dict, wanted: dict) -> None:
        facts = [(name, there.get(name), value) for name, value in wanted.items() if name != "engine"]
        if any(self.folder.glob(f"round_*/*/{REST}")):
            before = there.get("engine") or {}
            facts += [(name, before.get(name), value) for name, value in wanted["engine"].items()]
        for name, before, now in facts:
            if before != now:
                raise InputError(
                    f"{self.folder} holds rounds with {name} {before}; this call has {now}. Call it as before to "
                    f"continue, or name another folder"
                )

    def place(self, number: int) -> Path:
        """The folder of a round."""
        return self.folder / f"round_{number:02d}"

    def model(self, number: int, name: str, make: Callable[[], LatentCV]) -> LatentCV:
        """A model of a round, made by `make` where it is not there."""
        path = self.place(number) / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            make().save(path)
        return load_cv(path)

    def record(self, record: Round) -> Round:
        """The record of a round, as it was when the round was done."""
        path = self.place(record.number) / SUMMARY
        if not path.exists():
            write_json(path, record.to_dict())
        values = _json_of(path)
        try:
            return Round.from_dict(values)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{path}: not a round of this version of polyvae ({error}); name another folder"
            ) from None

    def check(self, number: int, found: Mapping[str, float]) -> None:
        """Write the comparison with the CV of the unbiased runs of a round."""
        write_json(self.place(number) / CHECK, dict(found))


def _json_of(path: Path) -> dict:
    return json_object(path.read_bytes(), path, "remove it, or name another folder")


def run_once(
    engine: Any, place: Path, cv: LatentCV, seed: int, given: Mapping[str, Any], many: bool = False
) -> Run | None:
    """Run an engine on all latents of a CV, or return the run that is there already.

    `seed` is that of the first try, `given` are further arguments. One run of `many` may fail, since no run may
    come to its end from where it starts: None after `TRIES`; only the last snapshot of such a run is kept.
    """
    if (done := saved_run(place)) is not None:
        return done
    place.mkdir(parents=True, exist_ok=True)
    failed = len(list(place.glob("failed_*.txt")))
    if many and failed == TRIES:
        return None
    try:
        run = engine.run(cv, seed=seed if not failed else derive_seed(seed, failed), folder=place, **given)
    except InputError as error:
        (place / f"failed_{failed + 1}.txt").write_text(f"{error}\n")
        if many:
            return run_once(engine, place, cv, seed, given, many)
        raise InputError(f"{place}: {error} (the same call repeats this run with another seed)") from error
    save_run(place, keep_last_snapshot(run) if many else run, cv)
    done = saved_run(place)  # as what is read again has fewer digits
    assert done is not None
    return done


def require_finished(runs: Sequence[Run | None], place: Path) -> list[Run]:
    """The runs that came to their end; raises `InputError` where there are none."""
    if not (found := [run for run in runs if run is not None]):
        raise InputError(
            f"{place}: none of the {len(runs)} unbiased runs from the biased one came to its end; their folders' "
            f"failed_1.txt say why. Mend that and remove {place} to do this round again"
        )
    return found


def derive_seed(seed: int, *place: int) -> int:
    """A seed for one step of a round, the same when the step is repeated; LAMMPS takes none larger."""
    return 1 + int(np.random.SeedSequence([seed, *place]).generate_state(1)[0]) % 899_999_999
