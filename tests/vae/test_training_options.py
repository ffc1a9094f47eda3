"""`pv.Training`: the same options as a record and by name, each checked where the record is made."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import polyvae as pv
from polyvae.vae.settings import Settings

FIELDS = {field.name for field in dataclasses.fields(pv.Training)}
GOOD = {
    "beta_schedule": st.sampled_from(["constant", "warmup", "cycle"]),
    "free_bits": st.floats(0, 10),
    "epochs": st.none() | st.integers(1, 1000),
    "batch_size": st.none() | st.integers(1, 1000),
    "learning_rate": st.floats(1e-8, 1),
    "lr_schedule": st.sampled_from(["cosine", "plateau", "constant"]),
    "validation": st.none() | st.floats(0, 0.99),
    "patience": st.none() | st.integers(1, 1000),
}
BAD = {
    "free_bits": [-1e-9, np.nan],
    "epochs": [0, 1.5],
    "batch_size": [0, True],
    "learning_rate": [0, 0.0, -1e-3, np.inf],
    "validation": [-0.1, 1.0],
    "patience": [0],
    "resume": [1.5],
}


@given(st.fixed_dictionaries({}, optional=GOOD))
def test_options_by_name_are_those_of_the_record(options):
    by_name = pv.Training.of(None, options)
    assert by_name == pv.Training(**options)
    # What is given by name takes the place of what the record holds; the rest stays.
    base = pv.Training(epochs=7, patience=3, resume=True)
    assert pv.Training.of(base, options) == dataclasses.replace(base, **options)
    settings = Settings(**by_name.settings())
    assert all(getattr(settings, name) == value for name, value in options.items())


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_value_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(pv.InputError, match=name.replace("_", ".")):
        pv.Training(**{name: value})


def test_options_that_decide_the_result_are_settings_and_the_others_are_not():
    others = FIELDS - pv.Training().settings().keys()
    assert others == {"progress", "checkpoint", "resume", "cache"}
    assert not others & {field.name for field in dataclasses.fields(Settings)}


@pytest.mark.parametrize("function", [pv.fit, pv.fit_vae, pv.sweep])
def test_a_name_that_is_no_option_is_refused(function):
    shape = (100, 5) if function is pv.fit_vae else (100, 5, 3)
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with pytest.raises(TypeError, match="'epoch'"):
        function(data, epoch=5)
    with pytest.raises(pv.InputError, match=r"polyvae\.Training"):
        function(data, training={"epochs": 5})
