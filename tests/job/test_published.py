"""A workdir on a published base keeps what that had: it is evaluated, opened and read as the model itself, and its
adapters write times.

The base is a small network with the published shape: 30 s, a vocabulary with times, several languages; published
weights are asked the same in test_published_weights.py.
"""

import contextlib
import csv
import dataclasses

import numpy as np
import pytest
import tiny_job
import tiny_model

import moejax
from moejax.__main__ import guarded
from moejax.cohorts import embed, hearing
from moejax.convert import hf_whisper
from moejax.decode.decoder import content
from moejax.decode.features import Features
from moejax.job import config as configs
from moejax.job import graph, study
from moejax.job.opening import open_context
from moejax.nn import functional
from moejax.ops import routing
from moejax.personal import lora, route
from moejax.personal.material import Recording
from moejax.runtime.files import read_json, write_json
from moejax.systems import enrolled, evaluate, listening, registry
from moejax.tasks import asr
from moejax.text import writers
from moejax.training import gate_inputs, network, timed
from moejax.work.heard import Heard

pytestmark = pytest.mark.job

ONCE = {"temperature": 0.0, "guards": "none"}  # one search for each window, whatever an untrained network says


@pytest.fixture(autouse=True)
def quick():
    with tiny_job.quick():
        yield


def job_of(weights, **changes):
    short = dict(gate__steps=2, experts__steps=2, joint__steps=4, adapters__steps=4, adapters__kinds=("lora", "full"))
    targets = ("decoder/layers/*/*attn/[qv]",)
    short |= dict(embed__layers=(-1,), evaluate__systems=("base", "moe", "moe_shuffled_gate"), report__draws=5)
    settings = dict(
        model__pretrained=str(weights), base__steps=0, translate__backends=("none",), mixture__targets=targets
    )
    return tiny_job.config(**{**short, **settings, **changes})


def write_model(folder, seed=1):
    """Of the published shape, but for a hop of 0.1 s: 30 s are then 150 states, and a test takes seconds."""
    tokenizer = tiny_model.tokenizer(True)
    config = dataclasses.replace(
        tiny_model.config(True, tokenizer.vocab_size), hop=1600, max_source_positions=150, max_target_positions=96
    )
    _, params = asr.init(asr.build(config, seed=seed))
    hf_whisper.save(folder, config, {group: params[group] for group in ("backbone", "buffer")}, tokenizer)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """corpus/ and weights/."""
    folder = tmp_path_factory.mktemp("published")
    tiny_job.write_corpus(folder / "corpus", per_speaker=5)
    write_model(folder / "weights")
    return folder


@pytest.fixture(scope="module")
def folder(place):
    """These and the finished workdir W/."""
    with contextlib.chdir(place), tiny_job.quick():
        moejax.run(job_of(place / "weights"), "W", quiet=True)
    return place


@pytest.fixture(scope="module")
def published(folder):
    return moejax.load(folder / "weights")


@pytest.fixture(scope="module")
def base(folder):
    return moejax.load(folder / "W", system="base")


def same(left, right):
    return writers.render(left, "json") == writers.render(right, "json")


def test_the_base_row_is_what_the_model_transcribes(folder, published):
    context = open_context(folder / "W")
    paths = context.corpus.manifest.audio_paths()
    rows = context.corpus.rows("test")
    records = tiny_job.records(folder / "W" / "evaluate" / "base.jsonl")
    found = published.transcribe([paths[row] for row in rows], language="en")
    assert [record["hypothesis"] for record in records] == [one.text.strip() for one in found] and len(records) > 1


@pytest.mark.parametrize(
    "options", [{}, {"algorithm": "chunked"}, {"task": "translate", "language": "German", "initial_prompt": "ba do"}]
)
def test_the_base_is_opened_as_the_model_itself(base, published, options):
    assert base.check(**options) == published.check(**options) and base.timestamps
    wave = tiny_model.sound(33.0)
    found = base.transcribe(wave, **ONCE, **options)
    assert same(found, published.transcribe(wave, **ONCE, **options)) and found.segments


@pytest.mark.parametrize("system", ["lora", "moe", "full", "moe_frozen"])
def test_what_is_trained_on_it_reads_long_audio_with_times(folder, published, system):
    recognizer = moejax.load(folder / "W", system=system)
    assert recognizer.check() == published.check() and recognizer.samples == (480_000,)
    segments = recognizer.transcribe(tiny_model.sound(64.0), **ONCE).segments
    assert segments and all(one.start <= one.end for one in segments)
    assert segments[-1].seek >= 300 and [one.seek for one in segments] == sorted(one.seek for one in segments)


def test_recordings_of_no_corpus_are_embedded_as_the_stage_does(folder):
    context = open_context(folder / "W")
    rows = context.corpus.rows("test")[:3]
    known = gate_inputs.embeddings_of(context, rows)
    found = embed.of_recordings(context)([context.corpus.audio[int(row)] for row in rows])
    np.testing.assert_allclose(found, known, atol=1e-4)
    assert np.abs(known[1:] - known[0]).max(1).min() > 0.01


def test_windows_with_times_are_a_share_of_the_training(folder):
    log = (folder / "W" / "log.txt").read_text()
    assert log.count("0.25 of the batches are windows of 30 s with times") == 4  # experts, joint, lora, full
    assert " windows heard: " in log  # the encoder is as it was: states are kept
    routes = [record["route"] for record in tiny_job.records(folder / "W" / "evaluate" / "moe.jsonl")]
    assert all(len(route) == 3 for route in routes)


def test_a_gate_learns_from_windows_what_it_hears_of_them_when_they_are_read(folder):
    context, recognizer = open_context(folder / "W"), moejax.load(folder / "W", system="moe")
    every = timed.windows(context)
    heard_WU = gate_inputs.of_windows(context, every)
    assert heard_WU.shape[0] == len(every) > 3
    windows = [hearing.window_of(context, every.audible(number)) for number in range(4)]
    encoded = list(recognizer.decoder.encode(windows))
    read_WE = np.concatenate([np.asarray(one.weight_BE)[: len(one.rows)] for one in encoded])
    read_WE = read_WE[np.argsort(np.concatenate([one.rows for one in encoded]))]
    network = recognizer.network

    def weights(heard):
        route = network.mixture.route(asr.make_gate(network.graphdef)(network.params, heard))
        return np.asarray(routing.dense_weights(route, network.mixture.num_experts))

    np.testing.assert_allclose(weights(heard_WU[:4]), read_WE, atol=1e-5)
    means = [gate_inputs.embeddings_of(context, np.array(members)).mean(0) for members in every.members[:4]]
    assert np.abs(weights(np.stack(means)) - read_WE).max() > 1e-3  # these are something else
    rows = context.corpus.rows("train")
    _, fetch = timed.material(context, rows, context.cfg.joint, gate_in=gate_inputs.embeddings_of(context, rows))
    learnt = timed.numbers(every, every.of(rows))
    np.testing.assert_array_equal(fetch.joined.gate_in, heard_WU[learnt])


def test_a_fallback_counts_windows_among_what_it_knows(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    work = moejax.run(job_of(folder / "weights", gate__fallback=0.9), tmp_path / "W", "gate", quiet=True)
    context, gate = open_context(work.root), network.gate_of(work)["params"]["buffer"]["gate"]
    heard_WU, every = gate_inputs.of_windows(context, timed.windows(context)), timed.windows(context)
    speaker_N = context.corpus.manifest.column("speaker")
    own_NU = gate_inputs.speaker_means(context, np.arange(len(speaker_N))[context.corpus.rows("train")])
    of = dict(zip(speaker_N[context.corpus.rows("train")], own_NU, strict=True))
    means = np.stack([of[speaker_N[heard[0]]] for heard in every.members])
    far_W = np.linalg.norm((heard_WU - means) @ np.asarray(gate["matrix"]), axis=1)
    assert np.mean(far_W <= float(np.asarray(gate["radius"]))) > 0.6  # of utterances alone they lie outside


def test_windows_lie_where_their_speakers_lie_in_what_a_gate_sees(folder):
    context, work = open_context(folder / "W"), folder / "W"
    every, speaker_N = timed.windows(context), context.corpus.manifest.column("speaker")
    heard_WU = gate_inputs.of_windows(context, every)
    mean_NU = gate_inputs.embeddings_of(context, np.arange(len(speaker_N)))
    train = context.corpus.rows("train")

    def off(mean_U, matrix_UK):
        """How far windows lie from the means of their speakers, in deviations within them."""
        own_NK, window_WK = ((heard - mean_U) @ matrix_UK for heard in (mean_NU, heard_WU))
        own = {name: own_NK[train][speaker_N[train] == name] for name in set(speaker_N[train])}
        within_K = np.sqrt(np.mean([rows.var(0) for rows in own.values()], axis=0))
        away_WK = window_WK - np.stack([own[speaker_N[heard[0]]].mean(0) for heard in every.members])
        return np.abs(away_WK.mean(0) / within_K).max()

    seen = seen_by(moejax.load(work, system="moe"))
    with np.load(work / "cluster" / "clusters.npz") as clusters:
        assert off(*seen) < 0.5 * off(clusters["proj_mean"], clusters["proj_matrix"])


def seen_by(recognizer):
    """What a gate sees: mean and matrix."""
    buffer = recognizer.network.params["buffer"]["gate"]
    return np.asarray(buffer["mean"]), np.asarray(buffer["matrix"])


def test_a_workdir_of_the_time_before_is_read_in_pieces_and_stays_finished(folder, tmp_path):
    work = tiny_job.copy(folder, tmp_path)
    pointer = work / "W" / "base" / "model.json"
    write_json(pointer, {"path": read_json(pointer)["path"]})
    old = moejax.load(work / "W", system="lora")
    assert old.check().algorithm == "pieces" and old.seconds == (tiny_job.BUCKET,)
    assert old.check(algorithm="sequential").algorithm == "sequential"
    assert old.check(algorithm="chunked").algorithm == "chunked"
    assert old.transcribe(tiny_model.sound(33.0), **ONCE, algorithm="sequential").segments[-1].end > 5
    config = configs.resolve(job_of(folder / "weights"))
    assert "model.times" not in graph.stage_inputs("base", config, {"describe": ""})
    other = configs.resolve(job_of(folder / "weights", model__times=0.5))
    assert graph.stage_inputs("base", other, {"describe": ""})["model.times"] == 0.5


def test_times_can_be_left_alone(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    work = moejax.run(job_of(folder / "weights", model__times=0.0), tmp_path / "W", "base", quiet=True)
    with_times, without = (read_json(w / "base" / "done.json") for w in (folder / "W", work.root))
    assert with_times["passes"] != without["passes"] and "times" not in read_json(work.path("base", "model.json"))


def test_a_fine_tuned_base_trains_on_them_too(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    config = job_of(place / "weights", base__steps=4, base__batch_size=4)
    work = moejax.run(config, tmp_path / "W", "base", quiet=True)
    assert read_json(work.path("base", "model.json")) == {"path": "base/model", "times": 0.25}
    assert moejax.load(work.root).check().algorithm == "sequential"


def test_published_models_and_enrolled_speakers_are_rows_of_the_same_utterances(folder, tmp_path, monkeypatch):
    """Another model beside the systems; phrases of who is in training come from there, of others from the test part."""
    monkeypatch.chdir(folder)
    other = tmp_path / "whisper-other"
    write_model(other, seed=2)
    work = tiny_job.copy(folder, tmp_path)
    more = {
        "evaluate__published": (str(other),),
        "evaluate__enroll": (2,),
        "evaluate__systems": ("base", "moe", "lora"),
    }
    moejax.run(job_of(folder / "weights", **more), work / "W", quiet=True)
    index = read_json(work / "W" / "evaluate" / "systems.json")
    assert list(index) == ["base", "base+2", "moe", "moe+2", "lora", "whisper-other", "whisper-other+2"]
    assert {index[name]["role"] for name in ("base+2", "moe+2")} == {"control"} and index["whisper-other"][
        "role"
    ] == "base"
    found = {name: tiny_job.records(work / "W" / "evaluate" / f"{name}.jsonl") for name in index}
    assert len({tuple(record["id"] for record in records) for records in found.values()}) == 1
    table = (work / "W" / "report" / "table.csv").read_text()
    page = (work / "W" / "report" / "report.html").read_text()
    assert all(f"\n{name}," in table and name in page for name in index)
    context = open_context(work / "W")
    column, paths = context.corpus.manifest.column, context.corpus.manifest.audio_paths()
    place = {str(name): i for i, name in enumerate(column("id"))}
    rows = [place[record["id"]] for record in found["base"]]
    model = moejax.load(other)
    heard = model.transcribe([paths[row] for row in rows], language="en")
    assert [record["hypothesis"] for record in found["whisper-other"]] == [one.text.strip() for one in heard]
    spoken = enrolled.phrases(context, context.corpus.rows("test"), (2,))
    assert spoken.rows.tolist() == rows
    for row, record in zip(rows, found["whisper-other+2"], strict=True):
        own = spoken.own[str(column("speaker")[row])]
        assert row not in own and {column("split")[i] for i in own} == {"train"}
        voice = model.enroll([paths[i] for i in own], [str(column("text")[i]) for i in own])
        assert voice.transcribe(paths[row], language="en").text.strip() == record["hypothesis"]


def test_what_a_stage_has_heard_no_other_encodes_again(folder, monkeypatch):
    context = open_context(folder / "W")
    store, audio = context.heard, context.corpus.audio
    heard = {content(hearing.window_of(context, audio[row])) for row in range(len(context.corpus.manifest))}
    assert heard <= set(store.at)  # of all parts: the embedding needs them
    monkeypatch.setattr(Heard, "add", lambda self, new: pytest.fail("a window was encoded again"))
    rows = context.corpus.rows("test")
    for name in ("base", "moe"):
        records = evaluate.decode(context, registry.open_system(context, name), rows)
        before = tiny_job.records(folder / "W" / "evaluate" / f"{name}.jsonl")
        assert [one["hypothesis"] for one in records] == [one["hypothesis"] for one in before]
        assert [one["route"] for one in records] == [one["route"] for one in before]
    system = registry.open_system(context, "full")  # its encoder is another one
    assert not listening._hears_as_base(context, system.network)
    assert listening._hears_as_base(context, registry.open_system(context, "lora").network)


def test_routes_of_kept_states_are_those_of_the_sound(folder):
    """The gate hears the pooled states, from the file or from its own pass over the audio."""
    context = open_context(folder / "W")
    moe = moejax.load(folder / "W", system="moe")
    paths, rows = context.corpus.manifest.audio_paths(), context.corpus.rows("test")
    records = tiny_job.records(folder / "W" / "evaluate" / "moe.jsonl")
    for row, record in zip(rows[:4], records, strict=False):
        found = moe.transcribe(paths[row], language="en")
        assert found.text.strip() == record["hypothesis"]
        np.testing.assert_allclose(found.route or record["route"], record["route"], atol=2e-6)


def test_none_of_a_fine_tuned_network_is_the_base_and_half_lies_between(folder):
    context = open_context(folder / "W")
    base = functional.paths(context.base.params["backbone"])

    def at(strength):
        with context.cfg.unlocked():
            context.cfg.evaluate.strength = strength
        return functional.paths(registry.open_system(context, "full").network.params["backbone"])

    whole, half, none = at(1.0), at(0.5), at(0.0)
    assert any(np.abs(whole[path] - base[path]).max() > 1e-5 for path in base)
    for path, leaf in base.items():
        np.testing.assert_allclose(none[path], leaf, atol=1e-6)
        np.testing.assert_allclose(half[path], (np.asarray(leaf) + np.asarray(whole[path])) / 2, atol=1e-6)


def phrases(folder):
    """Three recordings of the corpus, one speaker's."""
    manifest = open_context(folder / "W").corpus.manifest
    own = np.flatnonzero(manifest.column("speaker") == manifest.column("speaker")[0])[:3]
    paths = manifest.audio_paths()
    reader = moejax.load(folder / "W", system="base")
    return [Recording(reader.read(paths[row]), str(manifest.column("text")[row])) for row in own]


def misfit(reader, recordings):
    """Mean -log p of the texts, by the way in which `Recognizer.logits` reads."""
    found, config, tokenizer = [], reader.config, reader.tokenizer
    for one in recordings:
        ids = [*tokenizer.prefix("en", "transcribe"), *tokenizer.encode(" " + one.text.strip()), tokenizer.eot]
        mel_NM = np.zeros((2 * config.max_source_positions, config.num_mel_bins), np.float32)
        heard = Features(one.wave, n_mels=config.num_mel_bins, hop=config.hop)
        mel_NM[: heard.frames] = heard.slice(0, heard.frames)
        given = len(tokenizer.prefix("en", "transcribe")) - 1
        logits_LV = reader.logits(mel_NM.T[None], np.array([ids[:-1]]))[0][given:].astype(np.float64)
        logp_LV = logits_LV - np.log(np.exp(logits_LV).sum(-1, keepdims=True))
        found += [-logp_LV[at, token] for at, token in enumerate(ids[given + 1 :])]
    return float(np.mean(found))


def test_a_route_fitted_on_phrases_makes_their_texts_likelier_and_is_pulled_to_the_voice(folder):
    moe, said = moejax.load(folder / "W", system="moe"), phrases(folder)
    voice = moe.enroll([one.wave for one in said])
    free, held = route.fit(moe, said, "en", steps=30), route.fit(moe, said, "en", steps=30, pull=1e4)
    assert misfit(free, said) < misfit(voice, said) - 1e-4
    distance = [np.abs(one.network.logits_NE - voice.network.logits_NE).max() for one in (free, held)]
    assert distance[1] < 0.3 < distance[0]
    before = misfit(moe, said)
    free.transcribe(said[0].wave, language="en", **ONCE)
    assert misfit(moe, said) == before  # the mixture itself is as it was
    with pytest.raises(ValueError, match="base has no route to fit"):
        route.fit(moejax.load(folder / "W", system="base"), said, "en")


def test_one_lora_is_merged_to_learn_on_and_says_what_it_said(folder):
    lora_reader, said = moejax.load(folder / "W", system="lora"), phrases(folder)
    merged = lora.plain(lora_reader)
    assert merged.network.mixture is None
    assert misfit(merged, said) == pytest.approx(misfit(lora_reader, said), abs=1e-4)
    with pytest.raises(ValueError, match="no LoRA can be learnt on moe"):
        lora.plain(moejax.load(folder / "W", system="moe"))


def test_every_system_is_scored_in_the_ways_that_it_can_be(folder, tmp_path, capsys):
    asked = ("--data", folder / "corpus", "--system", "base,lora,moe", "--ways", "context,route,lora+context")
    more = ("--enroll", "0,2", "--limit", "1", "--language", "en", "--csv", tmp_path / "s.csv")
    assert guarded(["score", "--model", *map(str, (folder / "W", *asked, *more))]) == 0
    with open(tmp_path / "s.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["group"] == "all"]
    found = {(row["system"], row["enroll"]): (row["utterances"], row["words"]) for row in rows}
    one_net = {(name, way) for name in ("base", "lora") for way in ("0", "2", "2-lora+context")}
    assert set(found) == one_net | {("moe", "0"), ("moe", "2"), ("moe", "2-route")}
    assert len(set(found.values())) == 1  # the same utterances
    out = capsys.readouterr().out
    assert "W moe, 2-route enrolled - W lora, 2-lora+context enrolled" in out  # what a mixture has to beat
    assert "W moe - W lora" in out and "W moe, 2 enrolled - W moe, 2-route enrolled" in out
    assert guarded(["score", "--model", str(folder / "W"), "--data", str(folder / "corpus"), "--ways", "magic"]) == 1
    assert "unknown way 'magic'; known: context, route, lora" in capsys.readouterr().err


def test_seeds_of_a_study_share_what_the_encoder_heard(folder, tmp_path, monkeypatch):
    copy = tiny_job.copy(folder, tmp_path)
    add = Heard.add

    def nothing_new(self, new):
        new = list(new)
        assert not [key for key, _ in new if key not in self.at], "a window was encoded again"
        add(self, new)

    monkeypatch.setattr(Heard, "add", nothing_new)
    with contextlib.chdir(copy):
        job = job_of(folder / "weights", report__draws=5)
        study.study(job, "W", seeds=2, quiet=True)
    run = copy / "W" / "variants" / "main" / "seed1"
    assert (run / "evaluate" / "moe.jsonl").exists() and not (run / "states").exists()
