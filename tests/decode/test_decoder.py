"""The host class on a small network with a gate: batches, ladder, languages, features, routes."""

import copy
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.decode.decoder import Decoder, Window
from moejax.decode.options import DecodingOptions
from moejax.decode.prefix import forced, starts
from moejax.nn.whisper import WhisperConfig
from moejax.ops.audio import log_mel
from moejax.tasks import asr, recognition
from moejax.text.tokenizer import Tokenizer

TEXTS = ["the cat sat on the mat", "it's 12 o'clock, (well)"] * 3
LANGUAGES = ("en", "de", "fr", "es", "it")
SHORT, LONG = 6400, 12800
LOUDER = {"decoder/layers/0/cross_attn/out/kernel": 8.0, "decoder/norm/bias": 0.1, "encoder/norm/scale": 3.0}
EMBEDDING = asr.Embedding((-1,), "mean", True)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS, 420, LANGUAGES, timestamps_seconds=1)


@pytest.fixture(scope="module")
def parts(tokenizer):
    """graphdef, params, config, keywords of the route."""
    config = WhisperConfig(
        16,
        1,
        1,
        2,
        2,
        24,
        24,
        tokenizer.vocab_size,
        20,
        max_source_positions=20,
        max_target_positions=40,
        hop=320,
        mask_padding=True,
    )
    mixture = asr.Mixture(("decoder/*",), num_experts=3, rank=2, alpha=4.0)
    gate = {"mean": np.zeros(16), "matrix": 5 * np.eye(16), "hidden": 0, "zero_start": False}
    graphdef, params = asr.init(asr.build(config, mixture=mixture, gate=gate))
    rng = np.random.default_rng(0)
    params = {
        **jax.tree.map(lambda x: jnp.asarray(0.5 * rng.normal(size=x.shape), jnp.float32), params),
        "buffer": params["buffer"],
    }
    for path, scale in LOUDER.items():  # so that what is heard matters more than what was said
        *parents, last = path.split("/")
        node = functools.reduce(dict.__getitem__, parents, params["backbone"])
        node[last] = scale * node[last]
    return graphdef, params, config, {"route": "gate", "mixture": mixture, "embedding": EMBEDDING}


@pytest.fixture(scope="module")
def decoder(parts, tokenizer):
    graphdef, params, config, route = parts
    return recognition.make_decoder(graphdef, params, config, tokenizer, samples=(LONG, SHORT), batch_size=3, **route)


def waves(sizes=(4000, 12800, 6400, 9000, 12000, 5000)):
    """Tones of rising pitch over noise."""
    rng = np.random.default_rng(1)
    tones = [0.3 * np.sin(0.05 * (3 * i + 1) * np.arange(size)) for i, size in enumerate(sizes)]
    return [(tone + 0.01 * rng.normal(size=len(tone))).astype(np.float32) for tone in tones]


SAID = [[], [5, 6, 7], None, list(range(60)), [9], []]


def close(one, other):
    assert (one.tokens, one.text, one.language, one.temperature) == (
        other.tokens,
        other.text,
        other.language,
        other.temperature,
    )
    for name in ("avg_logprob", "no_speech_prob", "compression_ratio"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-5)
    np.testing.assert_allclose(one.route, other.route, atol=1e-5)


def test_batches_and_order_change_nothing_not_even_draws(decoder):
    options = DecodingOptions(temperature=(0.0, 0.6), best_of=2, sample_len=8)
    whole = decoder.decode(waves(), SAID, options)
    assert {one.temperature for one in whole} == {0.6} and len({one.language for one in whole}) > 1
    turned = decoder.decode(waves()[::-1], SAID[::-1], options)[::-1]
    alone = [decoder.decode([wave], [said], options)[0] for wave, said in zip(waves(), SAID, strict=True)]
    for one, other, third in zip(whole, turned, alone, strict=True):
        close(one, other)
        close(one, third)
    decoder.seed = 1
    assert decoder.decode(waves(), SAID, options) != whole
    decoder.seed = 0


@pytest.mark.parametrize("usual", [3, 1000])
def test_rows_that_climb_or_run_long_without_their_company_say_what_they_say_alone(decoder, monkeypatch, usual):
    """Of six in a batch of eight three climb the ladder, searched in four rows; with few usual tokens some run long."""
    wide, heard = copy.copy(decoder), waves((12800, 9000, 12000, 11000, 10000, 9500))
    wide.batch_size, searched = 8, []
    plain = DecodingOptions(language="en", temperature=0.0, sample_len=16)
    likely = sorted(one.avg_logprob for one in wide.decode(heard, SAID, plain))
    ladder = {"temperature": (0.0, 0.6), "best_of": 2, "logprob_threshold": (likely[2] + likely[3]) / 2}
    options = dataclasses.replace(plain, compression_ratio_threshold=None, no_speech_threshold=None, **ladder)
    monkeypatch.setattr("moejax.decode.decoder.usual", lambda seconds: np.full(np.shape(seconds), usual))
    search = Decoder._search
    monkeypatch.setattr(
        Decoder, "_search", lambda self, *a: searched.append(a[0].states_BTD.shape[0]) or search(self, *a)
    )
    found = wide.decode(heard, SAID, options)
    assert searched[0] == 8 and 4 in searched
    assert sorted(one.temperature for one in found) == [0.0] * 3 + [0.6] * 3
    for one, wave, said in zip(found, heard, SAID, strict=True):
        close(one, wide.decode([wave], [said], options)[0])


def test_ladder_compiles_nothing_new(decoder):
    options = DecodingOptions(language="en", temperature=(0.0, 0.3), sample_len=8)
    decoder.decode(waves(), None, options)
    search, encode = decoder.programs.search.jitted, decoder.programs.encode.jitted
    before = search._cache_size(), encode._cache_size()
    decoder.decode(waves(), None, dataclasses.replace(options, temperature=(0.0, 0.3, 0.7, 0.9), language="de"))
    assert (search._cache_size(), encode._cache_size()) == before and min(before) > 0


def test_equals_the_program_of_evaluation(decoder, parts, tokenizer):
    graphdef, params, config, route = parts
    predict = recognition.make_predict(
        graphdef, prefix=tokenizer.prefix("en"), eot=tokenizer.eot, max_tokens=8, suppress=tokenizer.suppress, **route
    )
    batch = waves((12800, 9000, 12000))
    audio_BS = np.stack([np.pad(wave, (0, LONG - len(wave))) for wave in batch])
    samples_B, label_B = np.asarray([len(wave) for wave in batch]), np.zeros(3, np.int32)
    want, weight_BE = predict(params, audio_BS, samples_B, label_B)
    options = DecodingOptions(language="en", without_timestamps=True, suppress_blank=False, sample_len=8)
    for b, found in enumerate(decoder.decode(batch, None, options)):
        assert found.tokens == np.asarray(want.tokens_BL)[b, : want.lengths_B[b]].tolist()
        np.testing.assert_allclose(found.route, weight_BE[b], atol=1e-6)
        np.testing.assert_allclose(found.avg_logprob, want.sum_logprob_B[b] / (want.lengths_B[b] + 1), atol=1e-5)
    assert np.ptp(np.asarray(weight_BE), axis=0).max() > 0.01


def test_features_computed_elsewhere(decoder, parts):
    """The mel of a whole window, with its audio for the gate, is the window; a short one is padded with zeros."""
    config, options = parts[2], DecodingOptions(language="en", sample_len=8)
    batch = waves((12800, 12800))
    mels = [np.asarray(log_mel(wave[None], n_mels=config.num_mel_bins, hop=config.hop)[0]) for wave in batch]
    want = decoder.decode(batch, None, options)
    both = [Window(mel, wave) for mel, wave in zip(mels, batch, strict=True)]
    for one, other in zip(decoder.decode(both, None, options), want, strict=True):
        close(one, other)
    cut = [mel[:25] for mel in mels]
    padded = [encoded for encoded in decoder.encode(cut)]
    assert [encoded.mask_BT.sum(1)[:2].tolist() for encoded in padded] == [[13, 13]]
    assert len(decoder.decode(cut, None, options)) == 2


def test_languages_are_detected_per_window(decoder):
    by_row = {}
    for batch in decoder.encode(waves()):
        by_row |= dict(zip(batch.rows, decoder.detect(batch), strict=True))
    found = [by_row[row] for row in sorted(by_row)]
    for probabilities in found:
        assert tuple(probabilities) == LANGUAGES
        np.testing.assert_allclose(sum(probabilities.values()), 1, atol=1e-5)
    best = [max(one, key=one.get) for one in found]
    decoded = decoder.decode(waves(), None, DecodingOptions(sample_len=4))
    assert [one.language for one in decoded] == best and len(set(best)) > 1


def test_prefixes_are_the_reference_ones(tokenizer):
    sot, prev, times = tokenizer.sot, tokenizer.sot_prev, DecodingOptions(language="en")
    start = starts(tokenizer, ["en", "de"], [[1, 2], None], times, context=40, rows=3)
    text = [start.tokens_BP[b, start.pad_B[b] :].tolist() for b in range(2)]
    assert text == [[prev, 1, 2, *tokenizer.prefix("en", timestamps=True)], tokenizer.prefix("de", timestamps=True)]
    assert [start.tokens_BP[b, start.sot_B[b]] for b in range(2)] == [sot, sot]
    assert start.limit_B.tolist() == [20, 20, 0] and start.tokens_BP.shape == (3, 3 + 1 + 16)
    long = starts(tokenizer, ["en"], [list(range(60))], dataclasses.replace(times, prefix="mat"), context=40, rows=1)
    assert long.tokens_BP[0].tolist() == [prev, *range(41, 60), *tokenizer.prefix("en", timestamps=True)]
    own = forced(tokenizer, dataclasses.replace(times, prefix="mat"), 40)  # generated, by force, on top of the room
    assert own == [tokenizer.timestamp_begin, *tokenizer.encode("mat")]
    assert long.limit_B[0] == min(20 + len(own), 40 - long.tokens_BP.shape[1] + 1)
    alone = starts(tokenizer, ["en"], None, dataclasses.replace(times, without_timestamps=True), context=40, rows=1)
    assert alone.tokens_BP[0].tolist() == tokenizer.prefix("en")


def test_what_may_not_come(tokenizer):
    assert DecodingOptions().banned(tokenizer) == tokenizer.suppress
    assert DecodingOptions(suppress_tokens="").banned(tokenizer) == ()
    control = {id for id in tokenizer.suppress if id >= tokenizer.eot}
    assert set(DecodingOptions(suppress_tokens=(4,)).banned(tokenizer)) == control | {4}
    assert set(DecodingOptions(suppress_tokens="-1,4").banned(tokenizer)) == {*tokenizer.suppress, 4}


def test_impossible_requests_are_named(decoder):
    with pytest.raises(ValueError, match="0.81 s; the model takes at most 0.80"):
        decoder.decode(waves((12960,)))
    with pytest.raises(ValueError, match="M must be 20"):
        decoder.decode([np.zeros((10, 80), np.float32)])
    with pytest.raises(ValueError, match="unknown language 'xx'"):
        decoder.decode(waves((4000,)), None, DecodingOptions(language="xx"))
    with pytest.raises(ValueError, match="1 prompts for 2 windows"):
        starts(decoder.tokenizer, ["en", "en"], [[]], DecodingOptions(), context=40, rows=2)
    assert decoder.decode([]) == []
