"""openai-whisper's own `transcribe` on the same scripted network: same windows, prompts, segments and words.

The network is replaced on both sides by one script, as random weights say nothing that could be cut into segments: this
compares the host's logic and the features, not the search. Opt-in: needs openai-whisper, `pytest tests/peers`.
"""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import whisper
import whisper.timing
from whisper.decoding import DecodingResult

from moejax.decode.guards import Guards
from moejax.decode.longform import LongformOptions, Reading, transcribe_sequential
from moejax.decode.options import DecodingOptions
from moejax.decode.results import Decoding
from moejax.decode.words import split_words, timings
from moejax.nn.whisper import WhisperConfig
from moejax.ops import alignment
from moejax.text.tokenizer import Tokenizer

LAYERS, HEADS = 2, 3
WEIGHTS = jax.jit(alignment.token_frame_weights)
CONFIG = WhisperConfig(48, 1, LAYERS, HEADS, HEADS, 32, 32, 51865)
TEXTS = tuple(" Hello,| world.| it's| 'so'| (well)| -| naïve| 你好|世界。| 🙂| Ja!| | 1,000| no".split("|"))

# The reference leaves its vocabulary file open, and takes deviations over nothing in windows of one mel frame
pytestmark = [
    pytest.mark.filterwarnings("ignore:Exception ignored in.*tiktoken:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:std_mean.*degrees of freedom:UserWarning"),
]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_tiktoken(f"{whisper.__path__[0]}/assets/multilingual.tiktoken", multilingual=True)


@pytest.fixture(autouse=True)
def _defined_over_a_single_frame(monkeypatch):
    """The reference divides 0 by 0 in windows of one encoder frame and warps nothing in those of none: words before the
    window's start come of it.
    """
    median, dtw = whisper.timing.median_filter, whisper.timing.dtw
    monkeypatch.setattr(whisper.timing, "median_filter", lambda x, width: median(torch.nan_to_num(x), width))
    monkeypatch.setattr(whisper.timing, "dtw", lambda x: dtw(x if x.shape[1] else torch.zeros(len(x), 1)))


class Script:
    """What the network of one recording says at its n-th window, and what its heads look at."""

    def __init__(self, seed, tokenizer):
        self.seed, self.tokenizer = seed, tokenizer
        self.heads = sorted({(int(i) // HEADS, int(i) % HEADS) for i in np.random.default_rng(seed).integers(0, 6, 3)})
        self.calls, self.aligned = [], 0

    def hear(self, mel_NM, prompt):
        rng = np.random.default_rng([self.seed, len(self.calls)])
        self.calls.append((mel_NM, list(prompt)))
        tokens = self._tokens(rng)
        numbers = (rng.uniform(-1.6, 0), rng.choice([0.1, 0.9], p=[0.7, 0.3]), rng.choice([0.0, 0.8], p=[0.8, 0.2]))
        return tokens, *map(float, numbers)

    def _tokens(self, rng):
        begin, tokens, at = self.tokenizer.timestamp_begin, [], int(rng.integers(0, 200))
        for _ in range(int(rng.integers(1, 6))):
            ids = self._text(rng)
            length = int(rng.choice([0, 3, 40, 200, 500], p=[0.1, 0.1, 0.3, 0.3, 0.2]))
            stop = min(at + length, 1500)
            tokens += [begin + at, *ids, begin + stop]
            at = min(stop + int(rng.choice([0, 20, 150])), 1500)
        kind = rng.choice(["paired", "open", "lone", "none"], p=[0.35, 0.35, 0.2, 0.1])
        if kind == "none":
            return self._text(rng) + ([begin + 700] if rng.random() < 0.5 else [])
        last = max(tokens[-1], begin + 5)
        ends = {"paired": [last, last], "open": [last, last, *self._text(rng)], "lone": [last]}
        return tokens[:-1] + ends[kind]

    def _text(self, rng):
        texts = rng.choice(TEXTS, int(rng.integers(0, 9)))
        return [id for text in texts for id in self.tokenizer._ids(str(text))]

    def look(self, count, prefix):
        """Scores [layer, head, L, 1500] and probabilities of the text tokens, of `count` tokens with the prefix."""
        rng = np.random.default_rng([self.seed, 7, self.aligned])
        self.aligned += 1
        steps = np.cumsum(rng.choice([0, 1, 10, 60, 400], count, p=[0.1, 0.3, 0.3, 0.25, 0.05]))
        middle_L = np.minimum(rng.integers(0, 400) + steps, 1499)
        # Not lower: a frame on which every token's weight underflows to 0 makes the reference divide 0 by 0
        near_LT = -np.minimum(np.square((np.arange(1500)[None] - middle_L[:, None]) / 8.0), 20.0)
        scores = near_LT + rng.normal(size=(LAYERS, HEADS, count, 1500))
        return scores.astype(np.float32), rng.choice([0.05, 0.5, 0.9], count - prefix - 2)


class Theirs:
    """The script in the form of a torch Whisper."""

    device, is_multilingual, num_languages = torch.device("cpu"), True, 99

    def __init__(self, script):
        self.script = script
        self.dims = types.SimpleNamespace(n_mels=80, n_audio_ctx=1500, n_text_ctx=448, n_text_layer=LAYERS)
        self.decoder = types.SimpleNamespace(blocks=[types.SimpleNamespace(cross_attn=Cross()) for _ in range(LAYERS)])
        mask = torch.zeros(LAYERS, HEADS, dtype=torch.bool)
        for layer, head in script.heads:
            mask[layer, head] = True
        self.alignment_heads = mask.to_sparse()

    def decode(self, mel, options):
        tokens, logprob, no_speech, temperature = self.script.hear(mel.numpy().T, options.prompt)
        return DecodingResult(
            audio_features=None,
            language=options.language,
            tokens=tokens,
            avg_logprob=logprob,
            no_speech_prob=no_speech,
            temperature=temperature,
            compression_ratio=1.0,
        )

    def detect_language(self, mel):
        self.detected = mel.numpy().T
        return None, {"en": 0.2, "de": 0.8}

    def __call__(self, mel, tokens):
        eot, ids = self.script.tokenizer.eot, tokens[0].numpy()
        scores, probs = self.script.look(len(ids), 3)
        for block, score in zip(self.decoder.blocks, scores, strict=True):
            block.cross_attn(torch.from_numpy(score)[None])
        logits = torch.zeros(1, len(ids), 51865)
        for i, prob in enumerate(probs):
            logits[0, 3 + i, ids[4 + i]] = float(np.log(prob / (1 - prob) * (eot - 1)))
        return logits


class Cross(torch.nn.Module):
    def forward(self, score):
        return None, score


class Ours:
    """The scripts of many recordings in the form of a Decoder and an Aligner; a window is known by its audio."""

    def __init__(self, scripts, audios, batch_size=4):
        self.scripts = {id(audio): script for audio, script in zip(audios, scripts, strict=True)}
        self.batch_size, self.shown, self.sizes = batch_size, [], []

    def encode(self, windows):
        for at in range(0, len(windows), self.batch_size):
            rows = list(range(at, min(at + self.batch_size, len(windows))))
            self.sizes.append(len(rows))
            yield types.SimpleNamespace(rows=rows, windows=[windows[row] for row in rows])

    def search(self, encoded, prompts, options):
        found, language = [], options.language or max((likely := self.detect(encoded)[0]), key=likely.get)
        for window, prompt in zip(encoded.windows, prompts, strict=True):
            mel_NM = np.zeros((3000, 80), np.float32)
            mel_NM[: len(window.mel_NM)] = window.mel_NM
            script = self.scripts[id(window.audio_S.base)]
            tokens, logprob, no_speech, temperature = script.hear(mel_NM, prompt)
            text = script.tokenizer.decode(tokens)
            found.append(Decoding(tokens, text, language, logprob, no_speech, temperature, 1.0))
        return found

    def detect(self, encoded):
        self.shown += [window.mel_NM for window in encoded.windows]
        return [{"en": 0.2, "de": 0.8} for _ in encoded.windows]

    def align(self, encoded, asked):
        words = []
        for window, question in zip(encoded.windows, asked, strict=True):
            if question is None:
                words.append([])
                continue
            script = self.scripts[id(window.audio_S.base)]
            count = 3 + 1 + len(question.tokens) + 1
            scores, probs = script.look(count, 3)
            mine = np.zeros((1, len(script.heads), -(-count // 128) * 128, 1500), np.float32)  # few shapes to compile
            mine[0, :, :count] = np.stack([scores[layer, head] for layer, head in script.heads])
            frames = max(1, question.frames // 2)
            weight = WEIGHTS(jnp.asarray(mine), jnp.asarray([count]), jnp.asarray([frames]))
            weight_LT = np.asarray(weight[0, 3 : count - 1, :frames])
            words.append(
                timings(weight_LT, probs, question.tokens, script.tokenizer, question.language, seconds_per_frame=0.02)
            )
        return words


def recording(seed, longest=75):
    rng = np.random.default_rng([seed, 1])
    samples = int(rng.uniform(2, longest) * 16000)
    loudness = np.repeat(rng.uniform(0, 0.3, samples // 4000 + 1), 4000)[:samples]
    return (loudness * rng.normal(size=samples)).clip(-1, 1).astype(np.float32)


def options_of(seed, *, words, seconds=0):
    """Options of a seed; clips end within the recording, past which the reference hangs."""
    rng = np.random.default_rng([seed, 2])
    options = {
        "condition_on_previous_text": bool(rng.random() < 0.7),
        "initial_prompt": str(rng.choice(["", "Ein Anfang"])) or None,
        "clip_timestamps": str(rng.choice(["0", "1.5", *["3,9"] * (seconds > 9), *["0.5,20,31,45"] * (seconds > 45)])),
        "word_timestamps": words,
    }
    options["carry_initial_prompt"] = bool(options["initial_prompt"]) and bool(rng.random() < 0.5)
    if words:
        silence = rng.choice([0.0, 0.3, 1.0, 4.0])
        options["hallucination_silence_threshold"] = float(silence) or None
    return options


def theirs(script, audio, options, language):
    model = Theirs(script)
    found = whisper.transcribe(model, audio, temperature=(0.0,), language=language, fp16=False, verbose=None, **options)
    return within_clips(found, options, audio), model


def ours(scripts, audios, options, language, **settings):
    model = Ours(scripts, audios, **settings)
    limits = LongformOptions(**options, guards=Guards.reference())
    found = transcribe_sequential(
        audios,
        Reading(
            model=model,
            tokenizer=scripts[0].tokenizer,
            config=CONFIG,
            decoding=DecodingOptions(language=language),
            options=limits,
            align=model.align if options["word_timestamps"] else None,
        ),
    )
    return [one for _, one in sorted(found, key=lambda pair: pair[0])], model


def within_clips(reference, options, audio):
    """The reference's result with no time outside its clip: ours ends where the clip ends, theirs where its window."""
    marks = [float(mark) for mark in options["clip_timestamps"].split(",")]
    marks += [len(audio) // 160 / 100] if len(marks) % 2 else []
    for segment in reference["segments"]:
        at = max(place for place in range(0, len(marks), 2) if marks[place] <= segment["seek"] / 100 + 1e-6)
        for timed in (segment, *segment.get("words", ())):
            timed["start"], timed["end"] = (min(max(timed[x], marks[at]), marks[at + 1]) for x in ("start", "end"))
    return reference


def compare(mine, reference, script, scripted, times=1e-9):
    """`times`: two paths can cost the same up to the last digits of the attention; then a frame more is as good."""
    assert len(script.calls) == len(scripted.calls)
    for (mel, prompt), (other_mel, other_prompt) in zip(script.calls, scripted.calls, strict=True):
        np.testing.assert_allclose(mel, other_mel, atol=1e-4)
        assert prompt == other_prompt
    assert mine.text == reference["text"] and mine.language == reference["language"]
    assert len(mine.segments) == len(reference["segments"])
    for segment, other in zip(mine.segments, reference["segments"], strict=True):
        segment = dataclasses.asdict(segment)
        for name in ("id", "seek", "text", "tokens", "temperature", "avg_logprob", "no_speech_prob"):
            assert segment[name] == other[name], name
        np.testing.assert_allclose([segment["start"], segment["end"]], [other["start"], other["end"]], atol=times)
        if segment["words"] is None:
            assert "words" not in other or not other["words"]
            continue
        assert [word["word"] for word in segment["words"]] == [word["word"] for word in other["words"]]
        for name, error in (("start", times), ("end", times), ("probability", 1e-3)):
            np.testing.assert_allclose(
                [word[name] for word in segment["words"]], [word[name] for word in other["words"]], atol=error
            )


@pytest.mark.parametrize("first", range(0, 160, 40))
def test_segments_equal_the_references(tokenizer, first):
    for seed in range(first, first + 40):
        audio = recording(seed)
        options = options_of(seed, words=False, seconds=len(audio) / 16000)
        mine, other = Script(seed, tokenizer), Script(seed, tokenizer)
        reference, _ = theirs(other, audio, options, "en")
        (found,), _ = ours([mine], [audio], options, "en")
        compare(found, reference, mine, other)


@pytest.mark.parametrize("first", range(0, 80, 20))
def test_words_and_skipped_silence_equal_the_references(tokenizer, first):
    timed = 0
    for seed in range(first, first + 20):
        audio = recording(seed, 60)
        options = options_of(seed, words=True, seconds=len(audio) / 16000)
        language = "ja" if seed % 5 == 0 else "en"
        mine, other = Script(seed, tokenizer), Script(seed, tokenizer)
        reference, _ = theirs(other, audio, options, language)
        (found,), _ = ours([mine], [audio], options, language)
        compare(found, reference, mine, other)
        timed += sum(len(segment.words) for segment in found.segments)
    assert timed > 50


def test_many_recordings_at_once_each_equal_the_references(tokenizer):
    options = options_of(3, words=True)
    seeds = range(300, 309)
    audios = [recording(seed, 50) for seed in seeds]
    mine, other = ([Script(seed, tokenizer) for seed in seeds] for _ in range(2))
    found, model = ours(mine, audios, options, "en", batch_size=4)
    assert max(model.sizes) == 4
    for one, script, scripted, audio in zip(found, mine, other, audios, strict=True):
        compare(one, theirs(scripted, audio, options, "en")[0], script, scripted, times=0.0201)


@pytest.mark.parametrize("seconds", [1.3, 45])
def test_language_is_detected_on_the_same_window(tokenizer, seconds):
    audio, options = recording(5)[: int(16000 * seconds)].copy(), options_of(1, words=False)
    mine, other = Script(5, tokenizer), Script(5, tokenizer)
    reference, model = theirs(other, audio, options, None)
    (found,), scripted = ours([mine], [audio], options, None)
    np.testing.assert_allclose(scripted.shown[0], model.detected, atol=1e-4)
    compare(found, reference, mine, other)


def test_warping_and_median_equal_the_references():
    for seed in range(12):
        rng = np.random.default_rng(seed)
        shape = rng.integers(1, 60, 2)
        shape = (72, 1476) if seed in (1, 3, 5) else shape
        cost = rng.normal(size=shape).astype(np.float32) if seed % 2 else rng.integers(0, 3, shape).astype(np.float32)
        np.testing.assert_array_equal(np.stack(alignment.dtw(cost)), whisper.timing.dtw(torch.from_numpy(cost)))
        width = int(rng.choice([3, 7]))
        np.testing.assert_array_equal(
            np.asarray(alignment.median_filter(jnp.asarray(cost), width)),
            whisper.timing.median_filter(torch.from_numpy(cost), width).numpy(),
        )


def test_words_are_split_as_the_reference_splits_them(tokenizer):
    rng = np.random.default_rng(0)
    for language in ("en", "zh", "th"):
        reference = whisper.tokenizer.get_tokenizer(True, language=language)
        for _ in range(60):
            texts = [id for text in rng.choice(TEXTS, 6) for id in tokenizer._ids(str(text))]
            ids = [*texts, *rng.integers(0, 50257, 5).tolist(), tokenizer.eot]
            ids = ids if rng.random() < 0.5 else [*rng.permutation(ids[:-1]).tolist(), tokenizer.eot]
            words, groups = reference.split_to_word_tokens(ids)
            assert split_words(tokenizer, ids, language) == (words, [list(group) for group in groups])
