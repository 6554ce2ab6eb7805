"""Emotions as tokens, on a small network of the published shape (30 s, times, several languages)."""

import contextlib
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
import tiny_job
import tiny_model

import moejax
from moejax import __main__ as cli
from moejax.convert import hf_whisper
from moejax.errors import BadValue
from moejax.job.opening import open_context
from moejax.nn import functional
from moejax.runtime import faults
from moejax.runtime.files import read_json
from moejax.systems import emotions
from moejax.tasks import asr
from moejax.tasks import emotion as task
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
    learnt = dict(emotion__steps=90, emotion__learning_rate=0.01, emotion__batch_size=8, emotion__rank=4)
    learnt |= dict(emotion__log_every=10, emotion__warmup=5, emotion__checkpoint_every=20, emotion__evals=1)
    return tiny_job.config(**{**settings, **learnt, **changes})


def write_corpus(root):
    """Six speakers say each of two texts twice, as its emotion sounds; of one clip of each nobody knows the emotion."""
    (root / "wav").mkdir(parents=True)
    rows = []
    for number, speaker in enumerate(SPEAKERS):
        for take in range(3):
            for name, text in SAID.items():
                file = f"wav/{speaker}-{name}{take}.wav"
                wave = tiny_job.speak(text, 0.9 + 0.05 * (number % 3), 0.001, 10 * number + take)
                soundfile.write(root / file, wave, tiny_job.RATE, subtype="PCM_16")
                rows.append((file, text, speaker, "" if take == 2 else name))
    tiny_job.write_table(root, rows, ("file", "text", "speaker", "label"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """corpus/, weights/ and the finished workdir W/."""
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
        moejax.run(job_of(place / "weights"), "W", stages="emotions", quiet=True)
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
        model = functional.merge(graphdef, params)
        return np.asarray(model.decode(tokens_BL, states_BTD, route=route))[0, -len(text) :]

    published = logits(plain, own, tokenizer.prefix("en"))
    found = logits(graphdef, longer, tokenizer.prefix("en"), route)
    assert found.shape[1] == V + 2
    np.testing.assert_allclose(found[:, :V], published, atol=1e-4)
    other = logits(graphdef, longer, tokenizer.prefix("en", emotion="a"), route)
    assert np.abs(other[:, :V] - published).max() > 1e-3  # it is heard where it stands


def test_both_are_learnt_by_heart_and_all_else_stays(recognizer, context):
    waves, texts, labels = clips(context)
    found = recognizer.transcribe(list(waves), **ONCE)
    assert [one.text.strip() for one in found] == list(texts)
    assert [max(one.emotion, key=one.emotion.get) for one in found] == list(labels)
    for one in found:
        assert sum(one.emotion.values()) == pytest.approx(1, abs=1e-5) and set(one.emotion) == set(SAID)
        assert max(one.emotion.values()) > 0.8 and one.segments[0].emotion == one.emotion
    base, own = (functional.paths(one["backbone"]) for one in (context.base.params, recognizer.params))
    embed, V = "decoder/embed", context.base.config.vocab_size
    assert base.keys() == own.keys() and all(np.array_equal(base[path], own[path]) for path in base if path != embed)
    assert np.array_equal(base[embed], own[embed][:V]) and own[embed].shape[0] == V + 2
    # Without the token it writes the same, of its own accord
    off = recognizer.transcribe(list(waves), emotion=False, **ONCE)
    assert [one.text.strip() for one in off] == list(texts) and {one.emotion for one in off} == {None}
    # What nobody taught is at chance
    untaught = moejax.load(context.work.root, system="base").transcribe(list(waves), **ONCE)
    assert {one.emotion for one in untaught} == {None} and [one.text.strip() for one in untaught] != list(texts)


def test_a_token_is_never_in_a_text_and_stands_where_it_is_said_to(recognizer, context):
    """Whatever the network says, at every other place its ids are banned."""
    waves, *_ = clips(context)
    favoured = recognizer.params["backbone"]["decoder"]["embed"].at[-2:].multiply(100.0)
    decoder = {**recognizer.params["backbone"]["decoder"], "embed": favoured}
    backbone = {**recognizer.params["backbone"], "decoder": decoder}
    loud = recognizer.with_params({**recognizer.params, "backbone": backbone})
    for options in ({}, {"suppress_tokens": None}, {"without_timestamps": True}, {"beam_size": 2}):
        found = loud.transcribe(waves[0], **{**ONCE, **options})
        ids = [id for segment in found.segments for id in segment.tokens]
        assert ids and max(ids) < context.base.config.vocab_size


def test_who_has_no_label_teaches_the_text_alone(context):
    states = emotion.encoder_states.opened(context)
    tokenizer = context.base.tokenizer.with_emotions(list(SAID), context.base.config.vocab_size)
    material = emotion.Material(context, states, tokenizer)
    rows, labels = context.corpus.rows("train"), context.corpus.manifest.column("label")
    unknown = [int(row) for row in rows if not str(labels[row])]
    turns = material.turns(unknown, 0.0, np.random.default_rng(0))
    assert len(turns) == 2 * len(unknown) and not any(one.emotion for one in turns)
    assert all(max(material.written(one)[0]) < context.base.config.vocab_size for one in turns)
    known = [emotion.Turn(int(row), str(labels[row]), False) for row in rows if str(labels[row])][: len(turns)]
    graphdef, params = task.init(context.base.config, emotion.definition(context.cfg, 4), context.base.params, 2, 0)
    loss = jax.jit(
        jax.grad(lambda head, batch: task.make_loss(graphdef, 1.0)({**params, "head": head}, batch, None)[0])
    )

    def moves(turns):
        batch = material.collator(turns)(context.window, np.arange(4))
        batch = dataclasses.replace(batch, **{name: padded(getattr(batch, name)) for name in PER_TOKEN})
        return float(np.abs(loss(params["head"], batch)["decoder"]["rows"]).max())

    assert moves(turns) == 0 and moves(known) > 1e-4


PER_TOKEN = ("tokens_BL", "targets_BL", "score_BL")


def padded(array_BL, length=24):
    """Longer, so that several batches are one compilation."""
    return np.pad(array_BL, ((0, 0), (0, length - array_BL.shape[1])))


def test_a_broken_training_goes_on_and_gives_the_same_rows(folder, tmp_path):
    for name in ("corpus", "weights"):
        (tmp_path / name).symlink_to(folder / name)
    job = job_of(tmp_path / "weights", emotion__steps=90)
    with contextlib.chdir(tmp_path):
        try:
            faults.arm("train.step:33=raise")
            with pytest.raises(OSError, match="No space left"):
                moejax.run(job, "W", stages="emotion", quiet=True)
        finally:
            faults.arm("")
        assert not (tmp_path / "W/emotion/params.safetensors").exists()
        moejax.run(job, "W", stages="emotion", quiet=True)
    (once, meta), (again, other) = (load_params(f / "W/emotion/params.safetensors") for f in (folder, tmp_path))
    assert meta == other and meta["emotions"] == ["happy", "sad"]
    same = jax.tree.map(np.array_equal, once, again)
    assert all(jax.tree.leaves(same)) and once["head"]["decoder"]["rows"].shape[0] == 2


def test_the_table_says_what_the_tokens_cost(folder, context):
    found = read_json(folder / "W/emotions/summary.json")
    part = found["wer"]["labelled"]
    lines = {kind: tiny_job.records(folder / f"W/emotions/{kind}.jsonl") for kind in emotions.READINGS}
    assert len({tuple(one["id"] for one in its) for its in lines.values()}) == 1
    assert part["on - off"][0] == pytest.approx(part["on"][0] - part["off"][0])
    assert part["on"][0] < part["base"][0] and part["speakers"] == 1
    assert {one["emotion"] is None for one in lines["off"]} == {True}
    assert found["felt"]["token"]["clips"] == found["felt"]["probe"]["clips"] == 4
    assert found["wer"]["others"]["utterances"] == 2
    text = (folder / "W/emotions/table.md").read_text()
    assert "| token: right, then said | happy | sad |" in text and "with tokens | on - off" in text
    assert (
        emotions._likeliest(None, ["a", "b"], 1) == 1 and emotions._likeliest({"a": 0.9, "b": 0.1}, ["a", "b"], 1) == 0
    )


def test_the_command_writes_them_and_may_leave_them_out(folder, tmp_path, capsys):
    wave = next((folder / "corpus/wav").glob("ann-happy0.wav"))
    call = ["transcribe", wave, "--model", folder / "W", "--language", "en", "--format", "json"]
    call += ["--guards", "none", "--temperature_increment_on_fallback", "None"]

    def said(*more):
        code = cli.guarded([str(one) for one in (*call, *more)])
        return code, *capsys.readouterr()

    code, out, _ = said("--system", "emotion")
    assert code == 0 and set(json.loads(out)["emotion"]) == set(SAID)
    code, out, _ = said("--system", "emotion", "--emotion", "False")
    assert code == 0 and "emotion" not in json.loads(out)
    code, out, err = said("--system", "base", "--emotion", "True")
    assert (code, out) == (1, "") and "base has no tokens of emotions" in err and err.count("\n") == 1
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
