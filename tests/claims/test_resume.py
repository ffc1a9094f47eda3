"""Claim: training that is killed at any moment and resumed ends with the same bytes as training that was not.

`polyvae fit` on data/chain2d.npz, 1,500 epochs, SIGKILL at ten moments drawn with seed 0, then `--resume`.
"""

import numpy as np
import pytest
from test_train import kill_and_resume


@pytest.mark.slow
def test_ten_kills(tmp_path):
    delays = np.random.default_rng(0).uniform(0, 2.5, 10)
    killed = kill_and_resume(tmp_path, delays, epochs=1500)
    print(f"\nkilled {killed} times; the bytes are the same")
    assert killed == 10
