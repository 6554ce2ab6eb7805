"""Translation beside recognition, on a small network of the published shape (30 s, times, several languages)."""

import contextlib
import dataclasses
import types

import jax
import numpy as np
import pytest
import tiny_job
import tiny_model

import moejax
from moejax.convert import hf_whisper
from moejax.decode.features import Features
from moejax.errors import BadValue
from moejax.export import systems as export_systems
from moejax.job import config as configs
from moejax.job.opening import open_context
from moejax.score import translations as scores
from moejax.systems import end_to_end, registry
from moejax.tasks import asr
from moejax.text.tokenizer import Tokenizer
from moejax.train.params_file import load_params
from moejax.training import gate_inputs, network, st, timed

pytestmark = pytest.mark.job
ONCE = {"temperature": 0.0, "guards": "none"}  # one search for each window, whatever a small network says


def job_of(weights, **changes):
    short = dict(gate__steps=2, experts__steps=0, joint__steps=4, adapters__steps=4, report__draws=5)
    short |= dict(adapters__kinds=("lora_total",), evaluate__systems=("base", "lora_st", "moe_st"), embed__layers=(-1,))
    learnt = dict(st__kinds=("lora_st", "moe_st"), st__steps=60, st__learning_rate=0.02, st__batch_size=8)
    settings = dict(model__pretrained=str(weights), base__steps=0, mixture__targets=("decoder/layers/*/*",))
    settings |= dict(joint__voice_mix=True, translate__backends=("none",), mixture__rank=4)
    return tiny_job.config(**{**short, **learnt, **settings, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """corpus/, weights/ and the finished workdir W/."""
    place = tmp_path_factory.mktemp("st")
    with contextlib.chdir(place), tiny_job.quick():
        tiny_job.write_corpus(place / "corpus", per_speaker=8)
        texts = [*tiny_job.sentences(60, 0), *tiny_job.GERMAN.values()]
        vocabulary = Tokenizer.train(texts, 2000, languages=("en", "de"), timestamps_seconds=30)
        config = tiny_model.config(True, vocabulary.vocab_size)
        config = dataclasses.replace(config, hop=1600, max_source_positions=150, max_target_positions=96)
        _, params = asr.init(asr.build(config, seed=1))
        decoder = params["backbone"]["decoder"]
        decoder["embed"] = 4 * decoder["embed"]  # a small update can then make a word likely, as in a trained network
        hf_whisper.save(place / "weights", config, {key: params[key] for key in ("backbone", "buffer")}, vocabulary)
        moejax.run(job_of(place / "weights"), "W", quiet=True)
    return place


@pytest.fixture(scope="module")
def context(folder):
    return open_context(folder / "W")


def audio(context, rows):
    paths = context.corpus.manifest.audio_paths()
    return [paths[row] for row in rows]


def likelihood(recognizer, waves, prefix, texts):
    """Mean log-probability of a token of these texts behind a prefix."""
    found = []
    for wave, text in zip(waves, texts, strict=True):
        ids = [*prefix, *recognizer.tokenizer.encode(text), recognizer.tokenizer.eot]
        mel_NM = Features(wave, n_mels=recognizer.config.num_mel_bins, hop=recognizer.config.hop)
        mel_NM = mel_NM.slice(0, 2 * recognizer.config.max_source_positions)
        logp = jax.nn.log_softmax(recognizer.logits(mel_NM.T[None], [ids[:-1]])[0])
        found += [float(logp[at - 1, ids[at]]) for at in range(len(prefix), len(ids))]
    return np.mean(found)


@pytest.mark.parametrize("system", ["lora_st", "moe_st"])
def test_one_system_writes_both_languages(folder, context, system):
    """The task is told by the decoder's first tokens alone."""
    recognizer, rows = moejax.load(folder / "W", system=system), context.corpus.rows("train")[:6]
    waves = [recognizer.read(path) for path in audio(context, rows)]
    column = context.corpus.manifest.column
    english, german = ([str(text) for text in column(name)[rows]] for name in ("text", "translation"))
    into = recognizer._into("de")
    said, translated = context.prefix(), context.prefix("de")
    assert said != translated

    def leaning(recognizer, prefix):
        """How much likelier what was said is than its translation."""
        return likelihood(recognizer, waves, prefix, english) - likelihood(recognizer, waves, prefix, german)

    assert leaning(recognizer, said) > leaning(into, translated) + 3
    base = moejax.load(folder / "W", system="base")
    assert abs(leaning(base, said) - leaning(base, translated)) < 1


def test_the_table_holds_what_the_opened_system_translates(folder, context):
    rows = context.corpus.rows("test")
    found = dict(end_to_end.translations(context, rows))
    assert list(found) == ["lora_st", "moe_st"]
    recognizer = moejax.load(folder / "W", task="translate")
    assert recognizer.system.name == "moe_st" and moejax.load(folder / "W").system.name == "moe"
    own = recognizer.transcribe(audio(context, rows), language="en", task="translate")
    asked = recognizer.transcribe(audio(context, rows), language="en", task="translate", target="German", **ONCE)
    assert len(asked) == len(rows)
    assert [one.text.strip() for one in own] == list(found["moe_st"].values())


def test_the_gate_begins_as_it_was_and_then_minds_the_task(context):
    rows = context.corpus.rows("train")[:5]
    graphdef, params, mixture, _ = network.with_gate(context, "joint")
    before = np.asarray(asr.make_gate(graphdef)(params, gate_inputs.embeddings_of(context, rows)))
    both = st.Both(context, {}, np.zeros(99, np.int64), gate=True, mixed=False)
    graphdef, params, *_ = network.minding_task(context)
    for task in (0, 1):
        told = np.full(len(rows), task)
        after = np.asarray(asr.make_gate(graphdef)(params, both.heard(rows, told, False)))
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
    moe = registry.open_system(context, "moe_st").network
    told = [np.asarray(asr.make_gate(moe.graphdef)(moe.params, both.heard(rows, np.full(5, t), False))) for t in (0, 1)]
    assert np.abs(told[0] - told[1]).min() > 1e-6
    assert moe.embedding.told == (0.0,) and moe.into("de").embedding.told == (1.0,)


def test_windows_are_translated_over_the_same_audio(context):
    """Times stay, texts change, language and task are given; nothing is heard that is not heard without."""
    texts = {row: text for row, (text, _) in st.translations(context).items()}
    every = timed.windows(context)
    tokenizer = context.base.tokenizer.into("de")
    restated = every.restated(texts, tokenizer, 96)
    own = {window.seed: tokens for window, tokens in zip(every.windows, every.said, strict=True)}
    assert 0 < len(restated) <= sum(not window.enrolled for window in every.windows)
    for window, members, (ids, given) in zip(restated.windows, restated.members, restated.said, strict=True):
        english, _ = own[window.seed]
        times = [
            [id for id in one[len(one) - len(rest) :] if id >= tokenizer.timestamp_begin]
            for one, rest in (
                (english, english[english.index(tokenizer.sot) :]),
                (ids, ids[ids.index(tokenizer.sot) :]),
            )
        ]
        assert times[0] == times[1]
        body = ids[ids.index(tokenizer.sot) :]
        assert body[:3] == tokenizer.prefix(task="translate", timestamps=True)
        assert given == ids.index(tokenizer.sot) + 3
        whole = [row for row, piece in zip(members, window.pieces, strict=True) if piece.whole]
        assert tokenizer.decode(body) == " ".join(texts[row] for row in whole)
        before = tokenizer.decode(ids[: ids.index(tokenizer.sot)])
        assert not set(before.split()) & set(tiny_job.WORDS)


def test_a_share_of_what_is_learnt_is_translated(context):
    """Not of the first speakers alone, whatever the order of the manifest."""
    rows = context.corpus.rows("train")
    texts = {int(row): "eins" for row in rows[: len(rows) // 2]}
    both = st.Both(context, texts, np.zeros(99, np.int64), gate=False, mixed=False)
    every, told = both._shared(rows)
    assert told.sum() == round(len(rows) * context.cfg.st.share / (1 - context.cfg.st.share))
    assert set(every[told].tolist()) == set(texts) and every[~told].tolist() == rows.tolist()
    assert both._shared(rows)[0].tolist() == every.tolist()
    context = types.SimpleNamespace(cfg=configs.changed(context.cfg, {"st": {"share": 0.1}}))
    every, told = st.Both(context, {int(row): "eins" for row in rows}, None, gate=False, mixed=False)._shared(rows)
    assert len(rows) > 20 and told.sum() == round(len(rows) / 9)
    assert every[told].max() > rows[len(rows) // 3]  # not the first ones


def test_windows_of_which_one_utterance_has_no_translation_are_left_out(context):
    every = timed.windows(context)
    absent = every.members[0][0]
    texts = {row: text for row, (text, _) in st.translations(context).items() if row != absent}
    restated = every.restated(texts, context.base.tokenizer.into("de"), 96)
    assert restated.members and not any(absent in members for members in restated.members)
    three = every.beside(restated, 3)
    assert len(three) == len(every) + 3 and three.said[: len(every)] == every.said
    assert all(said in restated.said for said in three.said[len(every) :])
    assert len(every.beside(every.restated({}, context.base.tokenizer.into("de"), 96), 3)) == len(every)


def test_a_gate_that_is_told_the_task_is_averaged_for_export(context):
    moe = registry.open_system(context, "moe_st")
    weights, meaning = export_systems.weights_of(context, moe, "average")
    assert len(weights) == moe.network.experts.num_experts and "training" in meaning


def test_who_taught_a_system_is_not_its_judge(folder, context):
    entry = st.index_of(context.work)["lora_st"]
    assert entry["taught_by"] == ["human"]
    row = dict(system="lora_st", ids=("a",), hypotheses=["eins"], references=["eins"], spoken=["ba"])
    said: list[str] = []
    for translator, taught, made_by in (("end to end", ("deepl",), "deepl:2026"), ("offline", (), "offline")):
        one = scores.Translated(translator=translator, taught_by=taught, made_by=[made_by], **row)
        assert scores.fair([one], said.append) == [] and "references were made by its translator" in said[-1]
    other = scores.Translated(translator="end to end", taught_by=("deepl",), made_by=["human"], **row)
    assert scores.fair([other], said.append) == [other]


def test_a_dry_run_takes_nothing_away(folder, tmp_path, monkeypatch):
    """What would be billed is said, and what was trained stays."""
    work = tiny_job.copy(folder, tmp_path)
    monkeypatch.chdir(work)
    config = job_of(work / "weights", st__targets="deepl", translate__dry_run=True, translate__backends=("deepl",))
    before = sorted(path.name for path in (work / "W" / "st").iterdir())
    with pytest.raises(BadValue, match="dry_run"):
        moejax.run(config, "W", "targets", quiet=True)
    assert "characters" in (work / "W" / "log.txt").read_text()
    assert sorted(path.name for path in (work / "W" / "st").iterdir()) == before


def test_what_was_trained_names_the_language_and_its_size(folder, context):
    index = st.index_of(context.work)
    assert {entry["target"] for entry in index.values()} == {"de"}
    saved, meta = load_params(folder / "W" / "st" / "moe_st" / "params.safetensors")
    U = gate_inputs.embeddings_of(context, [0]).shape[1]
    assert saved["buffer"]["gate"]["mean"].shape == (U + 1,) and meta["trainable"] == index["moe_st"]["trainable"]


@pytest.mark.parametrize(
    "options, word",
    [
        ({"task": "translate", "target": "fr"}, "translates into de "),
        ({"target": "de"}, "task='translate'"),
    ],
)
def test_what_it_cannot_write_is_refused_in_one_line(folder, options, word):
    with pytest.raises(BadValue, match=word):
        moejax.load(folder / "W", system="lora_st").check(**options)
    with pytest.raises(BadValue, match="en|task"):
        moejax.load(folder / "W", system="base").check(**options)


def test_phrases_in_front_are_refused_where_it_translates(folder, context):
    paths = context.corpus.manifest.audio_paths()
    enrolled = moejax.load(folder / "W", system="moe_st").enroll([paths[0]], ["ba do"])
    with pytest.raises(BadValue, match="phrases"):
        enrolled.transcribe(paths[1], language="en", task="translate")


@pytest.mark.parametrize(
    "changes, word",
    [
        ({"model__pretrained": ""}, "model.pretrained"),
        ({"gate__fallback": 0.9}, "gate.fallback"),
        ({"translate__target": "pt-br", "translate__backends": ("deepl",)}, "translate.target"),
        ({"st__kinds": ("lora_st",)}, "evaluate.systems"),
        ({"st__kinds": (), "st__targets": "deepl", "evaluate__systems": ()}, "st.targets"),
        ({"st__targets": "deepl_custom"}, "st.targets"),
    ],
)
def test_configs_that_cannot_be_are_refused_before_any_work(folder, changes, word):
    with pytest.raises(BadValue, match=word):
        configs.resolve(job_of(folder / "weights", **changes))
