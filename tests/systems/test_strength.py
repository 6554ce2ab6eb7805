"""Less of what was learnt. Of a whole network: tests/job/test_published.py; of a hypernetwork: test_hyper.py."""

import numpy as np
import pytest
import tiny_job

from moejax.job.opening import open_context
from moejax.nn import functional
from moejax.systems import registry

pytestmark = pytest.mark.job


@pytest.fixture
def context(tmp_path_factory):
    return open_context(tiny_job.shared(tmp_path_factory) / "W")


def opened(context, name, strength):
    with context.cfg.unlocked():
        context.cfg.evaluate.strength = strength
    return registry.open_system(context, name).network.params


@pytest.mark.parametrize("name", ["lora", "moe", "moe_uniform_gate"])
def test_half_of_an_update_is_half_of_every_product(context, name):
    whole = functional.paths(opened(context, name, 1.0)["expert"])
    half = functional.paths(opened(context, name, 0.5)["expert"])
    assert sum(path.endswith("/B") for path in whole) > 1
    for path, leaf in whole.items():
        share = 0.5 if path.split("/")[-1] in ("B", "shared_B") else 1.0
        np.testing.assert_allclose(half[path], share * np.asarray(leaf), rtol=1e-6, err_msg=path)
