"""What a training is judged by: all of dev, in pairs, and the best step only where it is beyond doubt."""

import re
import types

import jax
import numpy as np
import pytest
import tiny_job

from moejax.job.opening import open_context
from moejax.runtime.sharding import shard_batch
from moejax.tasks import asr
from moejax.train import loop
from moejax.training import dev, fitting, network
from moejax.work.folder import Work

pytestmark = pytest.mark.job


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return tiny_job.shared(tmp_path_factory)


def state_of(params, trained=("expert",), step=0):
    return types.SimpleNamespace(step=step, params={name: params[name] for name in trained})


def section(**more):
    return types.SimpleNamespace(
        **{"evals": 2, "best": "loss", "batch_size": 5, "dev_utterances": 2000} | more,
        get=lambda name, default=None: more.get(name, default),
    )


def test_every_utterance_of_dev_is_scored_and_their_mean_is_that_of_one_batch(job):
    context = open_context(job / "W")
    mixture = asr.Mixture(("decoder/layers/*/fc?",), num_experts=1, rank=2, alpha=4.0)
    graphdef, params = network.with_experts(context, mixture)
    labels_N = np.zeros(len(context.corpus.manifest), np.int64)
    judge = dev.judge(context, graphdef, mixture, "label", section(), labels_N)
    rows = context.corpus.manifest.indices(split="dev")
    errors_U, tokens_U = judge.each(state_of(params), params)
    assert len(judge.speakers) == len(rows) > 5 and (tokens_U > 0).all() and (errors_U > 0).all()
    collate = context.collator(rows, labels_N[rows])
    collate.lengths = {context.buckets[-1]: max(collate.lengths.values())}
    index = np.concatenate([np.arange(len(rows)), np.full(-len(rows) % context.multiple, -1)])
    batch = shard_batch(collate(context.buckets[-1], index), context.mesh)
    loss_fn = asr.make_loss(graphdef, asr.Row(route="label", frozen=True), mixture=mixture)
    whole = float(loss_fn(params, batch, jax.random.key(0))[1]["ce"])
    assert judge(state_of(params), params)["ce"] == pytest.approx(whole, rel=1e-5)
    some = dev.judge(context, graphdef, mixture, "label", section(dev_utterances=3), labels_N)
    assert len(some.speakers) == 3


class Planted:
    """A judge whose utterances cost what a step's parameters say, and a run whose best step they are of."""

    def __init__(self, tmp_path, monkeypatch, costs):
        self.work, self.home = Work(tmp_path, quiet=True), loop.Home(tmp_path / "s", "s")
        rng = np.random.default_rng(0)
        self.noise = {step: rng.normal(0, 0.02, 60) for step in costs}
        speakers = [f"s{n % 12}" for n in range(60)]
        score = {"ce": lambda params, batch, numbers: (params["cost"] + self.noise[params["step"]], np.ones(60))}
        self.judge = dev.Judge(speakers, lambda: [(np.arange(60), None)], score)
        self.states = {
            step: types.SimpleNamespace(step=step, params={"cost": cost, "step": step}) for step, cost in costs.items()
        }
        monkeypatch.setattr(fitting.loop, "best", lambda state, home: self.states.get(5))

    def kept(self, keep):
        before = self.judge.each(self.states[0], {})
        section = types.SimpleNamespace(get=lambda name, default: keep)
        found = fitting._judged(self.judge, before, self.states[9], {}, section, self.home, self.work)
        return found.step, (self.work.root / "log.txt").read_text()


def test_an_earlier_step_is_kept_where_it_is_better_beyond_doubt(tmp_path, monkeypatch):
    run = Planted(tmp_path, monkeypatch, {0: 2.0, 5: 1.0, 9: 1.5})
    step, said = run.kept("best")
    assert step == 5 and "step 5 is kept" in said and re.search(r"dev ce 2\.\d+ -> 1\.0\d+, -1\.0\d+ \[-", said)
    assert run.kept("last")[0] == 9


def test_noise_keeps_no_earlier_step(tmp_path, monkeypatch):
    step, said = Planted(tmp_path, monkeypatch, {0: 2.0, 5: 1.4995, 9: 1.5}).kept("best")
    assert step == 9 and "is kept" not in said


def test_a_network_that_ends_worse_than_it_began_says_so(tmp_path, monkeypatch):
    assert "WORSE than it began" in Planted(tmp_path, monkeypatch, {0: 1.0, 5: 1.2, 9: 1.5}).kept("last")[1]
    assert (
        "no difference beyond doubt" in Planted(tmp_path / "b", monkeypatch, {0: 1.5, 5: 1.5, 9: 1.5}).kept("last")[1]
    )
