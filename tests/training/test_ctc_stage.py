"""The stage that trains a head, and texts placed by it, on a network of the published shape (random weights: whether
borders are right is tests/tasks/test_forced.py, and docs/alignment.md on real speech)."""

import contextlib
import json

import numpy as np
import pytest
import tiny_job
import tiny_model

import moejax
from moejax.align import placing
from moejax.errors import BadValue, NotThere
from moejax.train.params_file import load_params

pytestmark = pytest.mark.job


def job_of(weights, **changes):
    settings = dict(model__pretrained=str(weights), base__steps=0, base__timestamps=False, model__times=0.6)
    learnt = dict(ctc__steps=60, ctc__batch_size=16, ctc__learning_rate=1e-2, ctc__hidden=32, ctc__warmup=10)
    return tiny_job.config(**{**settings, **learnt, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """corpus/, weights/ and a workdir W/ with a head."""
    place = tmp_path_factory.mktemp("ctc")
    with contextlib.chdir(place), tiny_job.quick():
        tiny_job.write_corpus(place / "corpus", per_speaker=10)
        tiny_model.write(place / "weights", timed=True)
        moejax.run(job_of(place / "weights"), "W", quiet=True, stages=("ctc",))
    return place


@pytest.fixture(scope="module")
def placer(folder):
    with contextlib.chdir(folder):
        return placing.opened("W")


def sound(texts):
    """Samples of these texts, one after the other."""
    return np.concatenate([tiny_job.speak(text, 1.0, 0.001, number) for number, text in enumerate(texts)])


def test_training_makes_texts_likelier(folder):
    lines = (folder / "W" / "ctc" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert losses[-1] < 0.7 * losses[0]
    assert "dev ctc" in (folder / "W" / "log.txt").read_text()


def test_a_recording_of_several_windows(placer):
    texts = ["ba do ki", "mu ba", "ki mu do", "do do ba"] * 20
    audio_S = sound(texts)
    assert len(audio_S) > 45 * 16000
    states = list(placer._states(audio_S))
    assert len(states) > 1 and sum(one.shape[1] for one in states) == -(-len(audio_S) // 320)
    # The first window's states are those that it has by itself: only its end, which the next hears better, is cut
    alone = next(iter(placer._states(audio_S[: 30 * 16000])))
    np.testing.assert_allclose(states[0], alone[:, : states[0].shape[1]], atol=1e-3)
    words = placer(audio_S, " ".join(texts))
    assert [one.text for one in words] == " ".join(texts).split()
    times = [time for one in words for time in (one.start, one.end)]
    assert times == sorted(times) and times[-1] <= len(audio_S) / 16000


def test_what_is_refused(folder, placer, tmp_path):
    with contextlib.chdir(folder):
        with pytest.raises(NotThere, match="weights has no CTC head"):
            placing.opened("weights", "ctc")
        attention = placing.opened("weights")
        with pytest.raises(BadValue, match="in 30 s at most, this is 31 s"):
            attention(np.ones(31 * 16000, np.float32), "ba")
        assert [one.text for one in attention(sound(["ba do"]), "ba do")] == ["ba", "do"]
    with pytest.raises(BadValue, match="nothing can be heard"):
        placer(np.zeros(0, np.float32), "ba")


def test_the_head_and_what_it_needs_are_in_one_file(folder):
    params, meta = load_params(folder / "W" / "ctc" / "params.safetensors")
    assert set(params) == {"head"} and meta["units"] == ["", *sorted(set("badokimu"))]
