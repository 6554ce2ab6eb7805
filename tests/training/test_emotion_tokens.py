"""Emotions as tokens, on a small network of the published shape (30 s, times, several languages)."""

import contextlib
import dataclasses
import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
import tiny_job
import tiny_model

import moejax
from moejax import __main__ as cli
from moejax.commands import transcribe_options, tree
from moejax.convert import hf_whisper
from moejax.decode.options import DecodingOptions
from moejax.errors import BadValue
from moejax.job.opening import open_context
from moejax.nn import functional
from moejax.runtime import faults
from moejax.runtime.files import read_json
from moejax.systems import emotions
from moejax.tasks import asr
from moejax.tasks import emotion as task
from moejax.text import writers
from moejax.text.tokenizer import Tokenizer
from moejax.train.params_file import load_params
from moejax.training import emotion

pytestmark = pytest.mark.job
SAID = {"happy": "ba do", "sad": "ki mu"}
ONCE = {"temperature": 0.0, "guards": "none", "language": "en"}  # one search, whatever a small network says
SPEAKERS = ("ann", "bob", "cem", "dan", "eva", "fay")


def job_of(weights, **changes):
    settings = dict(model__pretrained=str(weights), base__steps=0, mixture__targets=("decoder/layers/*/*",))
    settings |= dict(mixture__alpha=16.0, evaluate__batch_size=8, data__split="speaker_disjoint")
    settings |= dict(data__split_fractions=(0.6, 0.2, 0.2), report__normalizer="lower", emotions__draws=20)
    settings |= dict(evaluate__split="train")  # the table is of what was learnt by heart
    learnt = dict(emotion__steps=150, emotion__learning_rate=0.02, emotion__batch_size=8, emotion__rank=4)
    learnt |= dict(emotion__log_every=10, emotion__warmup=5, emotion__checkpoint_every=50, emotion__evals=1)
    learnt |= dict(emotion__rows_rate=1.0)  # its states are small numbers
    return tiny_job.config(**{**settings, **learnt, **changes})


def write_corpus(root):
    """Six speakers say each of two texts twice, as its emotion sounds; of one clip of each nobody knows the emotion."""
    (root / "wav").mkdir(parents=True)
    rows = []
    for number, speaker in enumerate(SPEAKERS):
        for take in range(3):
            for name, text in SAID.items():
                file = f"wav/{speaker}-{name}{take}.wav"
                breath = 0.001 if name == "happy" else 0.1
                wave = tiny_job.speak(text, 0.9 + 0.05 * (number % 3), breath, 10 * number + take)
                # Over and over: a network that has learnt nothing attends to all of its 30 s alike
                soundfile.write(root / file, np.tile(wave, 36), tiny_job.RATE, subtype="PCM_16")
                rows.append((file, text, speaker, "" if take == 2 else name))
    tiny_job.write_table(root, rows, ("file", "text", "speaker", "label"))


@contextlib.contextmanager
def heard_of(name):
    """What a logger says."""
    said, handler, logger = [], logging.Handler(), logging.getLogger(name)
    handler.emit, before = lambda record: said.append(record.getMessage()), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield said
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """corpus/, weights/ and the finished workdir W/, whose training was broken off once."""
    place = tmp_path_factory.mktemp("emotion")
    with contextlib.chdir(place), tiny_job.quick():
        write_corpus(place / "corpus")
        vocabulary = Tokenizer.train(list(SAID.values()) * 9, 2000, languages=("en", "de"), timestamps_seconds=30)
        config = tiny_model.config(True, vocabulary.vocab_size)
        config = dataclasses.replace(config, hop=1600, max_source_positions=150, max_target_positions=64)
        _, params = asr.init(asr.build(config, seed=1))
        decoder = params["backbone"]["decoder"]
        decoder["embed"] = 4 * decoder["embed"]  # a small update can then make a word likely, as in a trained network
        hf_whisper.save(place / "weights", config, {key: params[key] for key in ("backbone", "buffer")}, vocabulary)
        try:
            faults.arm("train.step:60=raise")
            with pytest.raises(OSError, match="No space left"):
                moejax.run(job_of(place / "weights"), "W", stages="emotions", quiet=True)
        finally:
            faults.arm("")
        assert not (place / "W/emotion/params.safetensors").exists()
        with heard_of("moejax.train.loop") as said:
            moejax.run(job_of(place / "weights"), "W", stages="emotions", quiet=True)
        (place / "said.txt").write_text("\n".join(said))
    return place


@pytest.fixture(scope="module", autouse=True)
def quick():
    with tiny_job.quick():
        yield


@pytest.fixture(scope="module")
def recognizer(folder):
    return moejax.load(folder / "W", system="emotion")


@pytest.fixture(scope="module")
def context(folder):
    return open_context(folder / "W")


def clips(context, split="train"):
    """(waves, texts, labels) of the labelled."""
    manifest, rows = context.corpus.manifest, context.corpus.rows(split)
    columns = ([str(one) for one in manifest.column(name)[rows]] for name in ("text", "label"))
    found = zip([np.asarray(context.corpus.audio[int(row)]) for row in rows], *columns, strict=True)
    return zip(*[one for one in found if one[2]], strict=True)


def test_published_ids_do_not_move(recognizer, context):
    before, after = context.base.tokenizer, recognizer.tokenizer
    first = context.base.config.vocab_size
    assert after.emotions == {"happy": first, "sad": first + 1} and recognizer.config.vocab_size == first + 2
    assert (after.timestamp_begin, after.eot, after.no_timestamps) == (
        before.timestamp_begin,
        before.eot,
        before.no_timestamps,
    )
    assert not before.emotions and after.encode("ba do") == before.encode("ba do")
    assert after.prefix("en") == before.prefix("en")
    said = after.prefix("en", emotion="sad")
    assert said == [*before.prefix("en", timestamps=True), first + 1, before.no_timestamps]
    assert after.decode(said, skip_special=False).endswith("<|transcribe|><|emotion:sad|><|notimestamps|>")
    with pytest.raises(BadValue, match="no token of the emotion 'angry'; known: happy, sad"):
        after.prefix("en", emotion="angry")
    with pytest.raises(BadValue, match="the vocabulary has"):
        before.with_emotions(["happy"], before.timestamp_begin + 5)


def test_an_untaught_token_changes_nothing_where_it_is_left_out(context):
    """Logits of all ids that there were."""
    base = context.base
    mixture = emotion.definition(context.cfg, 4)
    graphdef, params = task.init(base.config, mixture, base.params, 2, seed=0)
    longer, tokenizer = task.joined(params), base.tokenizer.with_emotions(["a", "b"], base.config.vocab_size)
    plain, own = asr.init(asr.build(base.config), base.params)
    states_BTD = jnp.asarray(np.random.default_rng(0).normal(size=(1, 150, base.config.d_model)), jnp.float32)
    route = asr.routing.one_hot(jnp.zeros(1, jnp.int32))
    text, V = [*tokenizer.encode("ba do"), tokenizer.eot], base.config.vocab_size

    def logits(graphdef, params, prefix, route=None):
        tokens_BL = jnp.asarray([[*prefix, *text]])
        decode = jax.jit(
            lambda params, tokens_BL: functional.merge(graphdef, params).decode(tokens_BL, states_BTD, route=route)
        )
        return np.asarray(decode(params, tokens_BL))[0, -len(text) :]

    published = logits(plain, own, tokenizer.prefix("en"))
    found = logits(graphdef, longer, tokenizer.prefix("en"), route)
    assert found.shape[1] == V + 2
    np.testing.assert_allclose(found[:, :V], published, atol=1e-4)
    other = logits(graphdef, longer, tokenizer.prefix("en", emotion="a"), route)
    assert np.abs(other[:, :V] - published).max() > 1e-3  # it is heard where it stands


def test_emotions_are_learnt_by_heart_and_the_text_stays_as_published(folder, recognizer, context):
    on, base = (tiny_job.records(folder / f"W/emotions/{kind}.jsonl") for kind in ("on", "base"))
    waves, _, labels = clips(context)
    assert len(labels) >= 12
    found = [one.emotion for one in recognizer.decoder.decode(list(waves), options=DecodingOptions(language="en"))]
    assert [max(one, key=one.get) for one in found] == list(labels) and min(max(one.values()) for one in found) > 0.9
    for one in on:  # of several windows the mean: a network that says anything ends its windows anywhere
        assert sum(one["emotion"].values()) == pytest.approx(1, abs=1e-5) and set(one["emotion"]) == set(SAID)
    # The text is the published decoder's, whatever the LoRA has learnt and whoever asks
    plain = moejax.load(folder / "W", system="base")
    for wave in waves[:3]:
        found = recognizer.transcribe(wave, emotion=False, **ONCE)
        assert found.text == plain.transcribe(wave, **ONCE).text and found.emotion is None
    assert not any(one["emotion"] for one in base) and any(one["hypothesis"] for one in base)
    assert [one["hypothesis"] for one in on] == [one["hypothesis"] for one in base]
    own, there = (functional.paths(one["backbone"]) for one in (context.base.params, recognizer.params))
    embed, V = "decoder/embed", context.base.config.vocab_size
    assert own.keys() == there.keys() and all(np.array_equal(own[path], there[path]) for path in own if path != embed)
    assert np.array_equal(own[embed], there[embed][:V]) and there[embed].shape[0] == V + 2


def test_a_broken_training_went_on_with_the_rows_that_it_had(folder):
    saved, meta = load_params(folder / "W/emotion/params.safetensors")
    assert meta["emotions"] == ["happy", "sad"] and saved["head"]["decoder"]["rows"].shape[0] == 2
    lines = {one["step"]: one for one in tiny_job.records(folder / "W/emotion/metrics.jsonl")}
    assert list(lines) == list(range(10, 160, 10))
    assert lines[150]["loss"] < 0.2 and lines[60]["loss"] < 0.3  # it went on at step 50: fresh rows would know nothing
    assert "emotion resumes from step 50 of 150" in (folder / "said.txt").read_text()


def test_a_token_is_never_in_a_text_and_stands_where_it_is_said_to(recognizer, context):
    """Whatever the network says, at every other place its ids are banned."""
    waves, *_ = clips(context)
    favoured = recognizer.params["backbone"]["decoder"]["embed"].at[-2:].multiply(100.0)
    decoder = {**recognizer.params["backbone"]["decoder"], "embed": favoured}
    backbone = {**recognizer.params["backbone"], "decoder": decoder}
    loud = recognizer.with_params({**recognizer.params, "backbone": backbone})
    for options in ({}, {"suppress_tokens": None}):
        (found,) = loud.decoder.decode([waves[0]], options=DecodingOptions(language="en", **options))
        assert len(found.tokens) and max(found.tokens) < context.base.config.vocab_size


def test_who_has_no_label_teaches_nothing(context):
    states = emotion.encoder_states.opened(context)
    tokenizer = context.base.tokenizer.with_emotions(list(SAID), context.base.config.vocab_size)
    material = emotion.Material(context, states, tokenizer)
    rows, labels = context.corpus.rows("train"), context.corpus.manifest.column("label")
    known = material.labelled(rows)
    assert 0 < len(known) < len(rows) and all(str(labels[row]) for row in known)
    batch = material.collator(known)(context.window, np.arange(4))
    first = context.base.config.vocab_size
    assert batch.score_BL.sum(1).tolist() == [1] * 4  # the emotion alone, behind start, language and task
    assert [id - first for id in batch.targets_BL[batch.score_BL]] == [
        list(SAID).index(str(labels[row])) for row in known[:4]
    ]
    assert [list(ids[:3]) for ids in batch.tokens_BL] == [tokenizer.prefix("en", timestamps=True)] * 4


def test_the_table_says_what_the_tokens_cost(folder, context):
    found = read_json(folder / "W/emotions/summary.json")
    part = found["wer"]["labelled"]
    lines = {kind: tiny_job.records(folder / f"W/emotions/{kind}.jsonl") for kind in emotions.READINGS}
    assert len({tuple(one["id"] for one in its) for its in lines.values()}) == 1
    assert part["on - base"] == [0, 0, 0] and part["on"] == part["base"]
    labelled = sum(bool(one["label"]) for one in lines["on"])
    assert found["felt"]["token"]["clips"] == found["felt"]["probe"]["clips"] == labelled == part["utterances"]
    assert found["wer"]["others"]["utterances"] == len(lines["on"]) - labelled > 0
    right = sum(max(one["emotion"], key=one["emotion"].get) == one["label"] for one in lines["on"] if one["label"])
    assert np.trace(found["felt"]["token"]["confusion"]) == right
    text = (folder / "W/emotions/table.md").read_text()
    assert "| token: right, then said | happy | sad |" in text and "with tokens | on - base" in text
    assert (
        emotions._likeliest(None, ["a", "b"], 1) == 1 and emotions._likeliest({"a": 0.9, "b": 0.1}, ["a", "b"], 1) == 0
    )


def test_files_have_them_and_the_command_may_leave_them_out(folder, recognizer, context, tmp_path, capsys):
    waves, *_ = clips(context)
    found = json.loads(writers.render(recognizer.transcribe(waves[0], **ONCE), "json"))
    assert set(found["emotion"]) == set(SAID) and set(found["segments"][0]["emotion"]) == set(SAID)
    asked = transcribe_options.asked(*tree.parsed(["transcribe", "a.wav", "--model", "M", "--emotion", "False"]))
    assert asked.options == {"emotion": False} and recognizer.check(**asked.options).decoding.emotion is False
    base = moejax.load(folder / "W", system="base")
    assert base.check().decoding.emotion is None
    with pytest.raises(BadValue, match="base has no tokens of emotions"):
        base.check(emotion=True)
    out = ["--to", "peft", "--output", str(tmp_path / "out")]
    assert cli.guarded(["export", "--workdir", str(folder / "W"), "--system", "emotion", *out]) == 1
    assert "no other library knows where they stand" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(emotion__classes=("happy", "bored")), "emotion.classes has 'bored'; labels of train are happy, sad"),
        (dict(emotion__classes=("happy",)), "the training part has 1 labels, two are the least"),
        (dict(data__columns={"audio": "file", "label": ""}), "the training part has 0 labels.*data.columns.label"),
        (dict(mixture__targets=("encoder/layers/*/fc1",)), r"experts sit in the encoder \(mixture.targets\)"),
        (dict(model__times=0.0), "model.times above 0"),
        (dict(emotion__steps=0), "emotion.steps is 0"),
    ],
)
def test_what_cannot_be_taught_is_refused_in_one_line(folder, tmp_path, changes, words):
    with contextlib.chdir(folder), pytest.raises(BadValue, match=words) as error:
        moejax.run(job_of(folder / "weights", **changes), tmp_path / "W", stages="emotions", quiet=True)
    assert "\n" not in str(error.value) and not (tmp_path / "W/emotion/params.safetensors").exists()
