"""An audio LLM: prompts with what is heard in them, what is scored, a training that listens, answers by searches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import salmonn_folder
import tiny_llama as tiny
import tiny_whisper
import tokenizers

from moejax.data.collate import Collator, Utterances
from moejax.errors import BadValue, NotThere
from moejax.nn import functional
from moejax.nn.experts import LowRankExperts
from moejax.nn.llama import LlamaConfig
from moejax.nn.variables import Init
from moejax.tasks import answers, asr, audio_llm
from moejax.text.llama_tokenizer import LlamaTokenizer
from moejax.types import Route

SECOND, STEPS = 16000, 60
WORDS = ["high", "low", "it", "is", "a", "high?", "USER:", "ASSISTANT:", "<Speech>", "</Speech>"]
MIXTURE = asr.Mixture(targets=tiny.QV, num_experts=1, rank=8, alpha=32.0)
CONFIG = dataclasses.replace(
    tiny.AUDIO,
    llama=LlamaConfig(64, 1, 4, 2, 96, tiny.VOCAB),
    connector=dataclasses.replace(tiny.CONNECTOR, layers=1),
    sounds=None,
)
ROW = asr.Row(route="label")
QUESTION = "is it high?"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Of a folder as transformers writes it, with a vocabulary of words."""
    folder = tmp_path_factory.mktemp("llama")
    salmonn_folder.words(folder, {word: n for n, word in enumerate(["<unk>", "<s>", "</s>", *WORDS])})
    return LlamaTokenizer.from_folder(folder)


def test_a_prompt_is_what_is_heard_between_texts_that_are_tokenised_apart(tokenizer):
    V = tiny.VOCAB
    ids = audio_llm.prompt_ids(tokenizer, audio_llm.prompt(QUESTION), heard=2, vocab_size=V)
    before, behind = tokenizer.encode("USER: <Speech>"), tokenizer.encode(f"</Speech> {QUESTION}\nASSISTANT:")
    assert ids == [tokenizer.bos, *before, V, V + 1, *behind] and tokenizer.bos == 1
    two = audio_llm.prompt_ids(tokenizer, audio_llm.prompt("a", recordings=2), heard=2, vocab_size=V)
    assert [one - V for one in two if one >= V] == [0, 1, 2, 3] and two.index(V + 2) > two.index(V + 1) + 1
    with pytest.raises(BadValue, match="'USER: hello' has no <SpeechHere>"):
        audio_llm.prompt_ids(tokenizer, "USER: hello", heard=2, vocab_size=V)


def test_only_the_answer_and_its_end_are_scored(tokenizer):
    given = audio_llm.prompt_ids(tokenizer, audio_llm.prompt(QUESTION), heard=2, vocab_size=tiny.VOCAB)
    batch = batches(tokenizer, [300.0, 2000.0])
    answer = [*tokenizer.encode("low"), tokenizer.eot]
    assert batch.targets_BL[0][batch.score_BL[0]].tolist() == answer
    assert np.flatnonzero(batch.score_BL[0])[0] == len(given) - 1
    ids, first = audio_llm.example(tokenizer, given, "low", most=1)  # what is cut has no end
    assert ids[first:] == answer[:1] and first == len(given)
    assert audio_llm.example(tokenizer, given, "low")[0][first:] == answer


def test_a_lower_scale_is_another_alpha():
    rng = np.random.default_rng(0)
    made = LowRankExperts(5, 7, num_experts=3, rank=2, alpha=4.0, init=Init(0))
    graphdef, params = functional.split(made)
    made = functional.merge(graphdef, tiny.drawn(params))
    x_BTD = jnp.asarray(rng.normal(size=(2, 4, 5)), jnp.float32)
    route = Route(jnp.asarray([[0.7, 0.3], [1.0, 0.0]]), jnp.asarray([[0, 2], [1, 0]]))
    np.testing.assert_allclose(made(x_BTD, audio_llm.scaled(route, 0.5)), 0.5 * made(x_BTD, route), atol=1e-6)
    deep = Route(route.weight_BX, layers=Route(jnp.ones((2, 3, 3))))
    assert audio_llm.scaled(deep, 0.5).layers.weight_BX[0, 0, 0] == 0.5
    assert audio_llm.scaled(None, 0.5) is None and audio_llm.scaled(route, 1.0) is route
    with pytest.raises(BadValue, match="token by token keep their scale"):
        audio_llm.scaled(Route(route.weight_BX, logits_BE=route.weight_BX), 0.5)


def test_gates_of_recognition_hang_on_it():
    mixture = dataclasses.replace(MIXTURE, num_experts=3, gate="token", routing="dense")
    gate = {"mean": np.zeros(5, np.float32), "matrix": np.eye(5, 4, dtype=np.float32), "hidden": 0, "zero_start": True}
    found = functional.paths(functional.split(audio_llm.build(tiny.AUDIO, mixture=mixture, gate=gate)())[1])
    assert found["gate/gate/kernel"].shape == (4, 3)
    assert [path for path in found if "router" in path] == [f"gate/decoder/layers/{n}/router/kernel" for n in (0, 1)]


def tone(hertz, seed=0):
    rng = np.random.default_rng([seed, int(hertz)])
    time = np.arange(SECOND) / SECOND
    return (0.3 * np.sin(2 * np.pi * hertz * time + rng.uniform(0, 6)) + 0.01 * rng.normal(size=SECOND)).astype("f4")


def answer_of(hertz):
    return "high" if hertz > 1000 else "low"


def batches(tokenizer, hertz, states=None):
    """One batch of tones, as audio or as `states` of the encoder, and their answers; the one LoRA is label 0."""
    given = audio_llm.prompt_ids(tokenizer, audio_llm.prompt(QUESTION), heard=2, vocab_size=tiny.VOCAB)
    said = [audio_llm.example(tokenizer, given, answer_of(one)) for one in hertz]
    utterances = Utterances(
        lambda row: tone(hertz[row]),
        np.full(len(hertz), SECOND),
        [ids for ids, _ in said],
        [first for _, first in said],
        tokenizer.eot,
        states=None if states is None else lambda row: states[row],
    )
    return Collator(utterances, (SECOND,), labels=np.zeros(len(hertz)))(SECOND, np.arange(len(hertz)))


TONES = np.concatenate([np.linspace(200, 600, 12), np.linspace(1500, 4000, 12)]).astype(int)
UNHEARD = np.concatenate([np.linspace(230, 580, 10), np.linspace(1650, 3900, 10)]).astype(int)
ONE = answers.one_lora(20)


@pytest.fixture(scope="module")
def learnt(tokenizer):
    """(answerer before any training, answerer after, losses)."""
    graphdef, params = asr.init(audio_llm.build(CONFIG, mixture=MIXTURE))
    encode = jax.jit(lambda params, x: audio_llm.states_of(functional.merge(graphdef, params), x, None))
    states = np.asarray(encode(params, np.stack([tone(one) for one in TONES])))
    loss_fn, rng = audio_llm.make_loss(graphdef, ROW, mixture=MIXTURE), np.random.default_rng(1)
    lesson, found = audio_llm.LESSONS["alignment"], []
    now, frozen, step = tiny_whisper.trainer(loss_fn, params, lesson.trains, learning_rate=5e-3)
    for _ in range(STEPS):
        rows = rng.permutation(len(TONES))[:16]
        now, metrics = step(now, frozen, batches(tokenizer, TONES[rows].tolist(), states[rows]))
        found.append(float(metrics["loss"]))
    made = answers.Answerer(CONFIG, graphdef, params, tokenizer)
    return made, dataclasses.replace(made, params={**frozen, **now.params}), found


def test_it_learns_to_listen_and_what_is_frozen_stays(learnt):
    before, after, losses = learnt
    assert np.mean(losses[-5:]) < 0.1 * losses[0]
    moved = tiny_whisper.changed(before.params, after.params)
    assert not any(change for path, change in moved.items() if path.startswith(("backbone", "buffer")))
    assert all(change for path, change in moved.items() if path.startswith("head/connector/project"))
    assert any(change for path, change in moved.items() if path.startswith("expert"))
    waves, wanted = [tone(one, seed=1) for one in UNHEARD], [answer_of(one) for one in UNHEARD]
    right = np.asarray(after(waves, [QUESTION] * 20, most=3, route=ONE)) == wanted
    assert right.mean() > 0.95
    order = np.arange(20).reshape(4, 5)[[0, 2, 1, 3]].ravel()  # half of the questions hear another tone
    shuffled = after([waves[at] for at in order], [QUESTION] * 20, most=3, route=ONE)
    assert (np.asarray(shuffled) == wanted).mean() == 0.5


def test_what_cannot_be_asked(learnt):
    made = learnt[0]
    with pytest.raises(BadValue, match="1 questions for 2 recordings"):
        made([tone(300)] * 2, ["a"])
    with pytest.raises(BadValue, match="a recording of 16001 samples; an audio LLM hears 16000 at most"):
        made([np.zeros(16001, np.float32)], ["a"])
    with pytest.raises(BadValue, match="answers of 3000 exceed the language model's 2048"):
        made([tone(300)], ["a"], most=3000)


def test_folders_without_a_tokenizer(tmp_path):
    with pytest.raises(NotThere, match=r"tokenizer\.json: there is no such file; a folder with tokenizer\.model"):
        LlamaTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BadValue, match=r"tokenizer\.json: not a tokenizer"):
        LlamaTokenizer.from_folder(tmp_path)
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0, "<s>": 1}, unk_token="<unk>"))
    made.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(BadValue, match=r"tokenizer\.json: the vocabulary has no token '</s>'"):
        LlamaTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(BadValue, match=r"tokenizer_config\.json: no readable object"):
        LlamaTokenizer.from_folder(tmp_path)
