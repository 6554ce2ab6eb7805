"""Against openai-whisper's own DecodingTask, with the same random weights and the published vocabulary.

Run with an environment that has openai-whisper: `pytest tests/peers/test_decoding.py`. Not collected by default.
"""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import whisper
from whisper.decoding import ApplyTimestampRules
from whisper.decoding import DecodingOptions as TheirOptions
from whisper.model import ModelDimensions
from whisper.tokenizer import get_tokenizer

from moejax.decode import rules
from moejax.decode.decoder import Window
from moejax.decode.options import DecodingOptions
from moejax.nn import functional
from moejax.nn.variables import Init
from moejax.nn.whisper import Whisper, WhisperConfig
from moejax.tasks import recognition
from moejax.text.tokenizer import Tokenizer

ASSETS = pathlib.Path(whisper.__file__).parent / "assets"
VOCABULARIES = {
    "v2": (51865, 80, dict(multilingual=True, num_languages=99)),
    "v3": (51866, 128, dict(multilingual=True, num_languages=100)),
    "en": (51864, 80, dict(multilingual=False, num_languages=99)),
}
NAMES = {
    "self_attn": "attn",
    "self_attn_norm": "attn_ln",
    "cross_attn_norm": "cross_attn_ln",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    "mlp_norm": "mlp_ln",
    "q": "query",
    "k": "key",
    "v": "value",
    "layers": "blocks",
    "kernel": "weight",
    "scale": "weight",
    "embed": "token_embedding.weight",
    "positions": "positional_embedding",
}


# The reference leaves its vocabulary file open, and sorts a tensor with numpy.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Exception ignored in.*tiktoken:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning"),
]


def openai_name(path):
    parts = path.split("/")[1:]
    if parts[1] == "norm":
        parts[1] = "ln_post" if parts[0] == "encoder" else "ln"
    return ".".join(NAMES.get(part, part) for part in parts)


def spread(model, eot):
    """Random weights that say different things, clearly, and come to an end."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, x in model.named_parameters():
            if x.ndim == 1:
                x.copy_(0.3 * torch.randn(x.shape, generator=generator) + ("ln" in name and "weight" in name))
            else:
                x.copy_(torch.randn(x.shape, generator=generator) * (2.0 / x[0].numel() ** 0.5))
        decoder = model.decoder
        decoder.positional_embedding.normal_(0, 1.0, generator=generator)
        bias = decoder.ln.bias / decoder.ln.bias.norm() ** 2
        decoder.token_embedding.weight.mul_(0.8)
        decoder.token_embedding.weight[eot] += 5.0 * bias
        decoder.token_embedding.weight[eot + 1 :] += 1.0 * bias
    return model.eval()


@pytest.fixture(scope="module", params=VOCABULARIES)
def pair(request):
    """(openai's model, our decoder, mel of four windows)."""
    vocab, mels, kind = VOCABULARIES[request.param]
    tokenizer = Tokenizer.from_tiktoken(
        ASSETS / ("multilingual.tiktoken" if kind["multilingual"] else "gpt2.tiktoken"), **kind
    )
    theirs = spread(whisper.model.Whisper(ModelDimensions(mels, 1500, 64, 4, 1, vocab, 448, 64, 4, 2)), tokenizer.eot)
    config = WhisperConfig(64, 1, 2, 4, 4, 256, 256, vocab, mels)
    state = theirs.state_dict()
    graphdef, abstract = functional.abstract(lambda: Whisper(config, init=Init(0)))
    flat = {}
    for path, leaf in functional.paths(abstract).items():
        x = state[openai_name(path)].numpy()
        if path.endswith("kernel"):
            x = x.transpose(2, 1, 0) if x.ndim == 3 else x.T
        assert x.shape == leaf.shape, path
        flat[path] = jnp.asarray(x)
    decoder = recognition.make_decoder(graphdef, functional.nest(flat), config, tokenizer, batch_size=4)
    mel_BMN = torch.randn(4, mels, 3000, generator=torch.Generator().manual_seed(1))
    return theirs, decoder, mel_BMN


def windows(mel_BMN):
    return [Window(np.ascontiguousarray(mel_MN.T)) for mel_MN in mel_BMN.numpy()]


def same(found, want, eot=50256):
    assert found.tokens == want.tokens
    assert found.language == want.language
    np.testing.assert_allclose(found.avg_logprob, want.avg_logprob, atol=1e-4)
    np.testing.assert_allclose(found.no_speech_prob, want.no_speech_prob, rtol=1e-3)
    if all(token < eot or token >= eot + 100 for token in found.tokens):  # their text spells control tokens, ours not
        np.testing.assert_allclose(found.compression_ratio, want.compression_ratio)


CASES = {
    "greedy": {},
    "text only": {"without_timestamps": True},
    "anything goes": {"suppress_tokens": "", "suppress_blank": False, "max_initial_timestamp": None},
    "short": {"sample_len": 7, "suppress_tokens": "11,12"},
    # With timestamps ours begins with <|0.00|>, as faster-whisper; theirs would ask for a timestamp after the text
    "prefix": {"prefix": "Well then", "sample_len": 30, "without_timestamps": True},
    "beam, prefix": {"prefix": "Well then", "sample_len": 30, "without_timestamps": True, "beam_size": 3},
    "beam": {"beam_size": 5, "sample_len": 80},
    "beam, text only, patient": {"beam_size": 5, "patience": 2.0, "without_timestamps": True, "sample_len": 40},
    "beam, length": {"beam_size": 3, "length_penalty": 0.3, "sample_len": 60},
    "beam, cut": {"beam_size": 4, "sample_len": 5},
}


@pytest.mark.parametrize("case", CASES)
def test_tokens_and_figures(pair, case):
    theirs, decoder, mel_BMN = pair
    language = "en" if not decoder.tokenizer.is_multilingual else "de"
    options = CASES[case] | {"language": language}
    if case == "anything goes":  # for their DecodingTask an empty string is no suppression
        assert not TheirOptions(**options).suppress_tokens
    found = decoder.decode(windows(mel_BMN), None, DecodingOptions(**options))
    # One by one: their beam search fails on more than one window at a time.
    for one, mel_MN in zip(found, mel_BMN, strict=True):
        want = theirs.decode(mel_MN, TheirOptions(fp16=False, **options))
        if "prefix" in options:  # part of our text, and without a likelihood of its own
            tokens = [*decoder.tokenizer.encode(options["prefix"]), *want.tokens]
            want = dataclasses.replace(want, tokens=tokens, compression_ratio=one.compression_ratio)
        same(one, want)
    assert len({(tuple(one.tokens), round(one.avg_logprob, 3)) for one in found}) > 1


@pytest.mark.parametrize("beam_size", [None, 3])
def test_prompts_of_different_lengths_in_one_batch(pair, beam_size):
    theirs, decoder, mel_BMN = pair
    rng = np.random.default_rng(3)
    prompts = [rng.integers(0, 50000, size).tolist() for size in (0, 3, 70, 300)]
    options = {"language": "en", "beam_size": beam_size}
    found = decoder.decode(windows(mel_BMN), prompts, DecodingOptions(**options))
    for one, mel_MN, prompt in zip(found, mel_BMN, prompts, strict=True):
        same(one, theirs.decode(mel_MN, TheirOptions(fp16=False, prompt=prompt, **options)))


def languages_of(decoder, mel_BMN):
    """Languages' probabilities of each window, in order."""
    found = {}
    for batch in decoder.encode(windows(mel_BMN)):
        found |= dict(zip(batch.rows, decoder.detect(batch), strict=True))
    return [found[row] for row in sorted(found)]


def test_language(pair):
    theirs, decoder, mel_BMN = pair
    if not decoder.tokenizer.is_multilingual:
        with pytest.raises(ValueError, match="English-only"):
            languages_of(decoder, mel_BMN)
        return
    _, want = theirs.detect_language(mel_BMN)
    for one, other in zip(languages_of(decoder, mel_BMN), want, strict=True):
        assert one.keys() == other.keys()
        np.testing.assert_allclose(list(one.values()), [other[code] for code in one], atol=1e-5)
    found = decoder.decode(windows(mel_BMN), None, DecodingOptions(sample_len=9, task="translate"))
    wanted = theirs.decode(mel_BMN, TheirOptions(fp16=False, sample_len=9, task="translate"))
    for one, other in zip(found, wanted, strict=True):
        same(one, other)


@pytest.mark.parametrize("max_initial", [None, 50, 0])
def test_timestamp_rules(max_initial):
    """On random logits after random and legal histories."""
    tokenizer = get_tokenizer(True, num_languages=99)
    eot, begin, vocab, L = tokenizer.eot, tokenizer.timestamp_begin, 51865, 6
    rng = np.random.default_rng(0)
    apply = jax.jit(lambda *x: rules.timestamps(*x, eot=eot, begin=begin, max_initial=max_initial))
    sampled = 0
    for count in range(L):
        kind_BL = rng.integers(0, 3, (24, L))
        time_BL = begin + np.sort(rng.integers(0, 1501, (24, L)), axis=1)
        tokens_BL = np.where(kind_BL == 0, rng.integers(0, eot, (24, L)), time_BL)
        logits_BV = (3 * rng.normal(size=(24, vocab))).astype(np.float32)
        logits_BV[::3, begin:] += 6
        logits_BV[::5, 7] += 30
        want_BV = torch.from_numpy(logits_BV.copy())
        history = np.concatenate([np.full((24, 3), 50258), tokens_BL[:, :count]], axis=1)
        ApplyTimestampRules(tokenizer, 3, max_initial).apply(want_BV, torch.from_numpy(history))
        found_BV = np.asarray(apply(logits_BV, jnp.asarray(tokens_BL, jnp.int32), count))
        np.testing.assert_array_equal(found_BV, want_BV.numpy())
        sampled += np.isneginf(found_BV[:, 7]).sum()
    assert 0 < sampled < 24 * L


def test_ladder_is_climbed_alike(pair):
    """Greedy fails here, so both sample; the draws differ, but what failed and what a draw scores do not."""
    theirs, decoder, mel_BMN = pair
    options = DecodingOptions(
        language="en", temperature=(0.0, 0.5), sample_len=20, logprob_threshold=0.0, no_speech_threshold=None
    )
    found = decoder.decode(windows(mel_BMN), None, options)
    assert [one.temperature for one in found] == [0.5] * 4
    likelihoods = {0.5: [], 0.0: []}
    for temperature in likelihoods:
        for seed in range(6):
            torch.manual_seed(seed)
            want = theirs.decode(
                mel_BMN, TheirOptions(fp16=False, language="en", temperature=temperature, sample_len=20)
            )
            decoder.seed = seed
            one = decoder.decode(
                windows(mel_BMN), None, dataclasses.replace(options, temperature=temperature, logprob_threshold=None)
            )
            likelihoods[temperature].append([[x.avg_logprob for x in side] for side in (one, want)])
    exact, drawn = np.asarray(likelihoods[0.0]), np.asarray(likelihoods[0.5])
    np.testing.assert_allclose(exact[:, 0], exact[:, 1], atol=1e-4)
    mean, error = drawn.mean((0, 2)), drawn.std((0, 2)) / np.sqrt(24)
    assert abs(mean[0] - mean[1]) < 4 * np.hypot(*error)
