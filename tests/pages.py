"""What the tests of README and documentation share: blocks of code, and short forms of what takes long."""

import contextlib
import functools
import re

import matplotlib.figure
import pytest

import polyvae as pv

BLOCK = re.compile(r"^(?:<!-- needs: (\w+) -->\n)?```(python|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)
# Short forms; what a page says itself counts.
_NETWORK = {"epochs": 1, "batch_size": 32, "encoder": (16,), "decoder": (16,)}
_QUICK = {
    "read": {"step": 10},
    "stream": {"step": 10},
    "fit": _NETWORK,
    "sweep": _NETWORK,
    "fit_vae": _NETWORK,
    "fit_generator": {"steps": 20, "width": 16, "depth": 1, "batch_size": 32},
    "optimize": {"n_starts": 2, "steps": 5, "refine_steps": 5},
    "check_vae": {"n_samples": 100, "n_draws": 2},
}


def blocks(text: str, language: str) -> list[tuple[str, str]]:
    """(engine that is needed or "", code) of each block of a page."""
    return [(needs, code) for needs, kind, code in BLOCK.findall(text) if kind == language]


@contextlib.contextmanager
def in_short():
    """Few frames, small networks, coarse pictures: to see that code runs, no more."""

    def short(function, settings):
        return functools.wraps(function)(lambda *args, **given: function(*args, **settings | given))

    with pytest.MonkeyPatch.context() as patch:
        for name, settings in _QUICK.items():
            patch.setattr(pv, name, short(getattr(pv, name), settings))
        patch.setattr(matplotlib.figure.Figure, "savefig", short(matplotlib.figure.Figure.savefig, {"dpi": 30}))
        yield
