"""What tests of a server share: a published-like model of random weights, a micro one, and a server of both."""

import pytest
import serving
import tiny_job
import tiny_model

from moejax.enrolment import profiles
from moejax.serve.models import Models


@pytest.fixture(scope="module")  # not longer: `quick` changes moejax for whoever comes next
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("serve")
    timed = tiny_model.write(root / "timed", timed=True, context=64)
    micro = tiny_model.write(root / "micro", timed=False)
    with tiny_job.quick(), pytest.MonkeyPatch.context() as patch:
        patch.setenv(profiles.VARIABLE, str(root / "speakers"))
        yield Models({"timed": str(timed), "micro": str(micro)})


@pytest.fixture(scope="module")  # not longer: `quick` changes moejax for whoever comes next
def shared(models):
    """The server of all tests that only ask."""
    with serving.running(models) as found:
        yield found
