"""What tests of the page share: a published-like model of random weights and a micro one."""

import sys
from pathlib import Path

import pytest
import tiny_job
import tiny_model

from moejax.enrolment import profiles
from moejax.serve.models import Models

# `serving`, of the tests of the server
sys.path.append(str(Path(__file__).parent.parent / "serve"))


@pytest.fixture(scope="module")  # not longer: `quick` changes moejax for whoever comes next
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("ui")
    timed = tiny_model.write(root / "timed", timed=True, context=64)
    micro = tiny_model.write(root / "micro", timed=False)
    with tiny_job.quick(), pytest.MonkeyPatch.context() as patch:
        patch.setenv(profiles.VARIABLE, str(root / "speakers"))
        yield Models({"timed": str(timed), "micro": str(micro)})
