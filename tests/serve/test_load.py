"""Fifty clients at once: nobody is lost, nobody is told what was said to another, and how long that took."""

import concurrent.futures
import os
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from serving import PLAIN, numbers, running, wav
from tiny_model import sound

from moejax.serve.models import Models, Which
from moejax.serve.service import Limits
from moejax.text import writers

CLIENTS = 50


def ask(url, model, wave_S):
    """(what was said, seconds until it was there)."""
    began = time.perf_counter()
    files = {"model": (None, model), "file": ("a.wav", wav(wave_S)), "response_format": (None, "verbose_json")}
    answer = httpx.post(f"{url}/v1/audio/transcriptions", files=files, timeout=600)
    assert answer.status_code == 200, answer.text
    return said(answer.json()), time.perf_counter() - began


def said(verbose):
    """What tells one recording's answer from another's, also where a model of random weights says the same of both."""
    likely = [round(segment["avg_logprob"], 3) for segment in verbose["segments"]]
    return verbose["text"], likely, [segment["end"] for segment in verbose["segments"]]


def alone(recognizer, waves, **options):
    """The same of each recording read by itself."""
    found = [recognizer.transcribe(wave, **options) for wave in waves]
    return [said({"text": one.text.strip(), "segments": writers.as_dict(one)["segments"]}) for one in found]


def loaded(place, asked):
    """The answers to (model, wave) of all, each from a client of its own, all at once; prints what it took."""
    began = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(lambda one: ask(place.url, *one), asked))
    wall, heard = time.perf_counter() - began, sum(len(wave) for _, wave in asked) / 16000
    p50, p95 = np.percentile([seconds for _, seconds in found], (50, 95))
    counted = numbers(place)
    size = counted[("moejax_batch_size_sum",)] / counted[("moejax_batch_size_count",)]
    print(
        f"\n{len(asked)} clients, {heard:.0f} s of audio in {wall:.1f} s: real-time factor {wall / heard:.3f}, "
        f"p50 {p50:.2f} s, p95 {p95:.2f} s, {size:.1f} read together"
    )
    return [text for text, _ in found]


@pytest.mark.parametrize("model", ["timed", "micro"])
def test_fifty_clients_of_mixed_lengths_are_told_what_one_alone_is(models, model):
    waves = [sound(seconds, seed) for seed, seconds in enumerate((0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 9.0, 14.0, 31.0, 45.0))]
    recognizer = models.get(models.which(model, system=None, route=None, task="transcribe"))
    expected = alone(recognizer, waves, **PLAIN)
    assert len(set(map(str, expected))) > 0.7 * len(waves)  # or an answer to somebody else would not show
    order = np.random.default_rng(1).permutation(CLIENTS) % len(waves)
    with running(models) as place:
        texts = loaded(place, [(model, waves[i]) for i in order])
        assert texts == [expected[i] for i in order]
        counted = numbers(place)
        assert counted[("moejax_requests_total", "200", "transcriptions")] == CLIENTS
        assert counted[("moejax_batch_size_sum",)] > 2 * counted[("moejax_batch_size_count",)]  # together, not in turn


@pytest.mark.skipif(not os.environ.get("MOEJAX_TEST_WEIGHTS"), reason="MOEJAX_TEST_WEIGHTS names no published model")
def test_published_weights_under_the_same_load():
    """With `MOEJAX_TEST_WEIGHTS=tiny.en MOEJAX_TEST_SPEECH=FOLDER`: real recordings, their texts as read alone."""
    models = Models({"real": os.environ["MOEJAX_TEST_WEIGHTS"]})
    models.warm_up(8)
    paths = sorted(
        path for path in Path(os.environ["MOEJAX_TEST_SPEECH"]).rglob("*") if path.suffix in (".flac", ".wav")
    )
    waves = [soundfile.read(path, dtype="float32")[0] for path in paths[:24]]
    recognizer = models.get(Which("real"))
    expected = [text for text, *_ in alone(recognizer, waves)]
    order = np.random.default_rng(1).permutation(CLIENTS) % len(waves)
    with running(models, Limits(), options={}) as place:
        found = loaded(place, [("real", waves[i]) for i in order])
        assert [text for text, *_ in found] == [expected[i] for i in order]
