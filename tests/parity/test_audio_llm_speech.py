"""An audio LLM on real speech: which of two digits was said, on states of the published tiny.en, of takes not heard
before. The language model is a toy of random weights; its LoRA and the connector learn.

MOEJAX_TEST_DATA/fsdd is the Free Spoken Digit Dataset with a metadata.csv of file, text, speaker and take.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import real_speech
import salmonn_folder
import tiny_llama as tiny
import tiny_whisper

from moejax.audio.constants import SAMPLE_RATE
from moejax.convert import whisper_folder
from moejax.data.collate import Collator, Utterances
from moejax.decode.rules import Rules
from moejax.decode.search import SearchPlan
from moejax.nn import functional
from moejax.nn.audio_llm import AudioLLMConfig
from moejax.nn.connectors import ConnectorConfig
from moejax.nn.llama import LlamaConfig
from moejax.ops.audio import log_mel
from moejax.tasks import answers, asr, audio_llm
from moejax.text.llama_tokenizer import LlamaTokenizer

pytestmark = pytest.mark.filterwarnings("default")
WORDS = ("three", "seven")
SAMPLES = 3 * SAMPLE_RATE // 2  # clips are shorter than a second and a half
QUESTIONS = ("is it three or seven ?", "is it seven or three ?")
CONNECTOR = ConnectorConfig(width=64, layers=1, heads=1, ffn=128)
LLAMA = LlamaConfig(64, 2, 4, 2, 128, 40)
STEPS, BATCH = 150, 32


@dataclasses.dataclass(frozen=True)
class Said:
    """Utterances as states [N, T, D] of tiny.en, and what was said in each."""

    states: np.ndarray
    words: list[str]


@pytest.fixture(scope="module")
def heard():
    """(sizes of tiny.en, its encoder, takes to learn from, others)."""
    with real_speech.optimised():
        folder, (root, rows) = real_speech.weights("tiny.en"), real_speech.table("fsdd")
        config, params = whisper_folder.load(folder)
        graphdef, _ = functional.abstract(asr.build(config))
        encode = jax.jit(
            lambda params, wave_BS: functional.merge(graphdef, params).encode(
                log_mel(wave_BS, n_mels=config.num_mel_bins, hop=config.hop)
            )
        )
        found = []
        for takes in (range(5, 25), range(5)):
            own = [row for row in rows if row["text"] in WORDS and int(row["take"]) in takes]
            waves = [real_speech.clip(root / row["file"], row["text"], "en").audio[:SAMPLES] for row in own]
            audio_NS = np.stack([np.pad(wave_S, (0, SAMPLES - len(wave_S))) for wave_S in waves])
            states = [np.asarray(encode(params, part)) for part in np.array_split(audio_NS, len(own) // 20)]
            found.append(Said(np.concatenate(states), [row["text"] for row in own]))
        yield config, {group: {"encoder": params[group]["encoder"]} for group in ("backbone", "buffer")}, *found


def batch_of(said, tokenizer, rows, rng):
    """Questions in either order about these utterances, and their answers."""
    sizes = {"heard": 4, "vocab_size": LLAMA.vocab_size}
    asked = [audio_llm.prompt(QUESTIONS[rng.integers(2)]) for _ in rows]
    ids = [
        audio_llm.example(tokenizer, audio_llm.prompt_ids(tokenizer, one, **sizes), said.words[row])
        for one, row in zip(asked, rows, strict=True)
    ]
    utterances = Utterances(
        audio=None,
        samples=np.full(len(rows), SAMPLES),
        tokens=[one for one, _ in ids],
        prefix=[given for _, given in ids],
        eot=tokenizer.eot,
        states=lambda n: said.states[rows[n]],
    )
    return Collator(utterances, (SAMPLES,), labels=np.zeros(len(rows)))(SAMPLES, np.arange(len(rows)))


def accuracy(graphdef, params, tokenizer, said, order=None):
    """Share of right answers, by beam search; with `order` to states of other utterances."""
    states = jnp.asarray(said.states if order is None else said.states[order])
    heard_BAD = jax.jit(lambda params, x: functional.merge(graphdef, params).hear(x))(params, states)
    sizes = {"heard": heard_BAD.shape[1], "vocab_size": LLAMA.vocab_size}
    ids = [audio_llm.prompt_ids(tokenizer, audio_llm.prompt(QUESTIONS[n % 2]), **sizes) for n in range(len(said.words))]
    begin = audio_llm.starts(ids, 3, pad=tokenizer.eot)
    plan = SearchPlan(eot=tokenizer.eot, max_tokens=3, beam=True, width=4, length_penalty=1.0, ranking="transformers")
    run, route = audio_llm.make_answer(graphdef), answers.one_lora(len(said.words))
    found = run(params, heard_BAD, route, begin, Rules(eot=tokenizer.eot), plan=plan)
    texts = [
        tokenizer.decode(row[:length].tolist())
        for row, length in zip(np.asarray(found.tokens_BL), np.asarray(found.lengths_B), strict=True)
    ]
    return np.mean(np.asarray(texts) == np.asarray(said.words))


def test_it_says_which_of_two_words_was_said_and_only_because_it_listens(heard, tmp_path, record_property):
    whisper, encoder, known, other = heard
    names = ["<unk>", "<s>", "</s>", *WORDS, "is", "it", "or", "?", "USER:", "ASSISTANT:", "<Speech>", "</Speech>"]
    salmonn_folder.words(tmp_path, {name: n for n, name in enumerate(names)})
    tokenizer = LlamaTokenizer.from_folder(tmp_path)
    config = AudioLLMConfig(whisper, LLAMA, None, CONNECTOR)
    mixture = asr.Mixture(targets=tiny.QV, num_experts=1, rank=8, alpha=32.0)
    graphdef, params = asr.init(audio_llm.build(config, mixture=mixture), encoder)
    loss_fn = audio_llm.make_loss(graphdef, asr.Row(route="label"), mixture=mixture)
    now, frozen, step = tiny_whisper.trainer(loss_fn, params, audio_llm.LESSONS["alignment"].trains, learning_rate=2e-3)
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        rows = rng.choice(len(known.words), BATCH, replace=False)
        now, _ = step(now, frozen, batch_of(known, tokenizer, rows, rng))
    learnt = {**frozen, **now.params}
    right = accuracy(graphdef, learnt, tokenizer, other)
    shuffled = accuracy(graphdef, learnt, tokenizer, other, rng.permutation(len(other.words)))
    record_property("right", right)
    record_property("shuffled", shuffled)
    print(f"{len(known.words)} clips learnt from, {len(other.words)} asked: right {right:.3f}, shuffled {shuffled:.3f}")
    assert right > 0.95 and 0.3 < shuffled < 0.7
    assert not any(tiny_whisper.changed(params["backbone"], learnt["backbone"]).values())
