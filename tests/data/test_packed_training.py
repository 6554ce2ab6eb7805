"""Training from shards: the batches of the folder that was packed, from tables that stay on disk."""

import hashlib
import json
import pickle
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import packed_corpus
import pyarrow as pa
import pytest
import scale
from ml_collections import ConfigDict

from moejax.data import manifest as manifests
from moejax.data import mapped, pipeline
from moejax.data.collate import Collator, Tokens, Utterances
from moejax.data.manifest import COLUMNS, Manifest
from moejax.data.strings import Strings, codes, shared
from moejax.train import loop
from moejax.training import describe
from moejax.work import fields
from moejax.work.context import Corpus, _Rows

WINDOW = 32_000


def described(work, source, root, **data):
    cfg = ConfigDict(fields.defaults(describe.SECTIONS))
    with cfg.unlocked():
        cfg.data.update(ConfigDict({"source": source, "root": str(root), **data}))
    return describe.run(cfg, work), cfg


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(workdir of a folder, workdir of what it was packed to), both described, and their summaries."""
    home = tmp_path_factory.mktemp("pair")
    packed_corpus.write(home / "source")
    packed_corpus.packed(home / "source", home / "packed")
    one, other = scale.Work(home / "one"), scale.Work(home / "other")
    first, _ = described(one, "folder", home / "source", columns={"audio": "file"})
    second, cfg = described(other, "arrayrecord", home / "packed")
    return one, other, first, second, cfg


def test_describing_shards_says_what_describing_the_folder_says(pair):
    one, other, first, second, cfg = pair
    assert second["content"] == first["content"] and second["utterances"] == packed_corpus.COUNT
    summaries = [json.loads(work.path("describe", "summary.json").read_text()) for work in (one, other)]
    assert summaries[0] == summaries[1] and summaries[0]["fixes"]["resampled"] and summaries[0]["leakage"]
    assert not other.path("describe", "audio").exists()  # nothing was written again
    left, right = (Manifest.load(work.path("describe/manifest.parquet")) for work in (one, other))
    assert left.digest(without=("audio",)) == right.digest(without=("audio",))
    assert right.audio_paths() == list(right.paths()) and right.audio_paths()[0].endswith("00000.arrayrecord#0")
    assert describe.inputs(cfg) == describe.inputs(cfg)


def test_nobody_hears_a_shard_of_what_was_measured(pair, tmp_path):
    with pytest.raises(ValueError, match="--shard is for recordings that are listened to; of a packed corpus all"):
        describe.shard(pair[-1], scale.Work(tmp_path), (1, 2))


def test_what_was_measured_is_what_limits_judge(pair, tmp_path):
    one, other, *_ = pair
    limits = {"max_seconds": 0.45, "min_seconds": 0.35, "max_skipped_share": 1.0}
    packed = other.path().parent / "packed"
    for source, place, options in (
        ("folder", one.path().parent / "source", {"columns": {"audio": "file"}}),
        ("arrayrecord", packed, {}),
    ):
        described(scale.Work(tmp_path / source), source, place, **options, **limits)
    skipped = [
        (tmp_path / name / "describe/skipped.csv").read_text().splitlines() for name in ("folder", "arrayrecord")
    ]
    assert [line.split(",")[:2] for line in skipped[0]] == [line.split(",")[:2] for line in skipped[1]]
    assert {line.split(",")[1] for line in skipped[0][1:]} == {"too_short", "too_long"}


def material(work):
    """(plan, fetch) of the training part, as a stage makes them."""
    corpus = Corpus(work, 1 << 20)
    rows = corpus.rows("train")
    tokens = Tokens(corpus.manifest.strings("text", rows), [7, 8], scale.Words())
    utterances = Utterances(_Rows(corpus.audio, rows), corpus.samples[rows], tokens, 2, 0)
    plan = pipeline.BatchPlan(
        corpus.samples[rows], (WINDOW // 4, WINDOW), 3, names=corpus.manifest.strings("id", rows), seed=1
    )
    return plan, Collator(utterances, plan.buckets, cohorts=corpus.cohort_index(rows))


def same(left, right):
    fields = ("audio_BS", "samples_B", "tokens_BL", "targets_BL", "score_BL", "cohort_B", "real_B")
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in fields)


def test_batches_are_those_of_the_folder_and_go_on_where_they_were(pair):
    (plan, fetch), (packed_plan, packed_fetch) = material(pair[0]), material(pair[1])
    assert plan.digest() == packed_plan.digest() and plan.names_of(2) == packed_plan.names_of(2)
    stream, ours = pipeline.loader(plan, fetch), pipeline.loader(packed_plan, packed_fetch)
    expected = [next(stream) for _ in range(2 * plan.batches_per_epoch + 1)]
    assert any(batch.audio_BS.any() for batch in expected)
    for number, batch in enumerate(expected):
        assert same(batch, next(ours)), number
    middle = plan.batches_per_epoch // 2 + plan.batches_per_epoch
    ours.set_state({"batch": middle})
    again = pipeline.loader(packed_plan, pickle.loads(pickle.dumps(packed_fetch)), start=middle)  # as workers have it
    for batch in expected[middle:]:
        assert same(batch, next(ours)) and same(batch, next(again))
    for one in (stream, ours, again):
        one.close()


def columns(count, audio):
    """Of a manifest of so many rows, by reference to a few recordings."""
    found = {name: [""] * count for name, kind in COLUMNS.items() if kind == pa.string()}
    return found | {
        **{"id": [f"utterance-{row:07d}" for row in range(count)], "text": [f"words ä {row}" for row in range(count)]},
        **{"audio": [audio[row % len(audio)] for row in range(count)], "split": ["train"] * count},
        **{"speaker": [f"s{row // 50}" for row in range(count)], "cohort": [f"c{row % 3}" for row in range(count)]},
        **{"seconds": [0.5] * count, "silence": [0.1] * count, "snr": [20.0] * count, "sample": [False] * count},
    }


def test_a_large_manifest_is_mapped_and_says_the_same(tmp_path, monkeypatch):
    small = Manifest.from_columns(columns(40, ["a.wav", "b.wav"]))
    path = tmp_path / "describe/manifest.parquet"
    small.save(path)
    monkeypatch.setattr(mapped, "LARGE", 7)
    large, copy = Manifest.load(path), mapped.path_of(path)
    assert large.file == copy and large.table.column("id").num_chunks == 6
    assert large.digest() == small.digest() and large.rows()[39]["id"] == "utterance-0000039"
    assert large.indices(cohort=["c1", "c2"]).tolist() == small.indices(cohort=["c1", "c2"]).tolist()
    assert large.indices(sample=False).tolist() == list(range(40))
    texts = large.strings("text", np.array([5, 30]))
    sent = pickle.dumps(texts)
    assert list(pickle.loads(sent)) == list(texts) == ["words ä 5", "words ä 30"] and b"words" not in sent
    made = copy.stat().st_mtime_ns
    assert Manifest.load(path).file == copy and copy.stat().st_mtime_ns == made
    Manifest.from_columns(columns(41, ["a.wav"])).save(path)
    assert len(Manifest.load(path)) == 41  # of another file
    broken = columns(41, ["a.wav"]) | {"text": ["x"] * 40 + [" "]}
    table = pa.table({name: pa.array(broken[name], kind) for name, kind in COLUMNS.items()})
    with pytest.raises(ValueError, match="row 40 .id 'utterance-0000040'. has an empty text"):
        Manifest(table).save(path)
    with pytest.raises(ValueError, match="row 40 .id 'utterance-0000040'. has an empty text"):
        Manifest.load(path)
    assert not [file for file in path.parent.iterdir() if file.name.startswith(".")]


def test_strings_are_a_list_that_is_made_when_it_is_looked_at():
    column = pa.chunked_array([pa.array(["b", "a", ""]), pa.array(["b"])])
    whole, some = Strings(column), Strings(column, np.array([3, 1]))
    assert list(whole) == ["b", "a", "", "b"] == shared(column) and len(whole) == 4 and whole[-1] == "b"
    assert list(some) == ["b", "a"] and some[1] == "a" and list(some[np.array([1])]) == ["a"]
    assert list(whole[1:3]) == ["a", ""] and some.arrow().to_pylist() == ["b", "a"]
    numbers, names = codes(column)
    assert names == ["", "a", "b"] and numbers.tolist() == [2, 1, 0, 2]
    with pytest.raises(IndexError):
        some[2]


def test_digests_are_what_they_were_when_all_was_in_lists():
    manifest = Manifest.from_columns(columns(9, ["a.wav"]))
    digest = hashlib.blake2b(digest_size=16)
    for name, kind in COLUMNS.items():
        if name in manifests.UNKNOWN and name != "snr":
            continue
        digest.update(name.encode())
        values = manifest.table.column(name)
        if kind == pa.string():
            texts = [value.encode() for value in values.to_pylist()]
            digest.update(np.array([len(text) for text in texts], "<i4").tobytes() + b"".join(texts))
        else:
            digest.update(np.ascontiguousarray(values.to_numpy()).tobytes())
    assert manifest.digest() == digest.hexdigest() == manifest.take(range(9)).digest()
    assert manifest.take([1, 2]).digest() != manifest.take([2, 1]).digest()
    for names in (None, ["ä", "b", "c"], Strings(pa.chunked_array([["ä", "b", "c"]]))):
        plan = pipeline.BatchPlan([5, 6, 20], (10, 20), 2, names=names, seed=3)
        said = json.dumps([[5, 6, 20], [10, 20], [2, 2], 3, None if names is None else list(names)])
        assert plan.digest() == hashlib.blake2b(said.encode(), digest_size=8).hexdigest()


def test_a_large_plan_holds_everyone_once_in_an_order_of_its_own(monkeypatch):
    monkeypatch.setattr(pipeline, "LARGE", 10)
    lengths = np.random.default_rng(0).integers(1, 401, size=203)
    plan = pipeline.BatchPlan(lengths, (100, 200, 400), 8, seed=1)
    orders = []
    for epoch in range(3):
        batches = [plan[epoch * plan.batches_per_epoch + number] for number in range(plan.batches_per_epoch)]
        real = [(samples, int(row)) for samples, index_B in batches for row in index_B if row != pipeline.FILLER]
        assert Counter(row for _, row in real) == Counter(range(203))
        assert all(lengths[row] <= samples and (samples == 100 or lengths[row] > samples / 2) for samples, row in real)
        assert all(len(index_B) == 8 for _, index_B in batches)
        orders.append([row for _, row in real])
    assert orders[0] != orders[1] != orders[2] and sorted(orders[0]) != orders[0]
    again = pickle.loads(pickle.dumps(plan))
    assert all(np.array_equal(again[number][1], plan[number][1]) for number in (0, 7, 40))
    assert orders[0] != [
        row
        for number in range(plan.batches_per_epoch)
        for row in pipeline.BatchPlan(lengths, (100, 200, 400), 8, seed=2)[number][1]
    ]


def test_the_status_line_says_what_was_waited_for(capsys, monkeypatch):
    monkeypatch.setattr(loop, "PLAIN_EVERY_SECONDS", 0.0)
    ticker = loop._Ticker("toy", 0, 3, shown=True)
    for step in (1, 2, 3):
        with ticker.waiting():
            time.sleep(0.2 if step == 1 else 0.01)  # the first batch starts the loader
        time.sleep(0.05)
        ticker.advance(step)
    lines = capsys.readouterr().err.splitlines()
    shares = [float(re.search(r"ms/step  data (\d+\.\d) %  \d+ s left", line)[1]) for line in lines]
    assert len(shares) == 3 and shares[0] == 0 and 1 < shares[2] < 60


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    packed_corpus.write(tmp_path / "source", 6)
    packed_corpus.packed(tmp_path / "source", tmp_path / "packed", shard_bytes=10**9)
    audio = [str(tmp_path / f"packed/00000.arrayrecord#{place}") for place in range(6)]
    peaks = {}
    for count in (4_000, 80_000):
        Manifest.from_columns(columns(count, audio)).save(tmp_path / f"w{count}/describe/manifest.parquet")
        line = [sys.executable, "tests/data/scale.py", "train", "--rows", str(count), "--work", str(tmp_path)]
        done = subprocess.run(
            [*line, "--batches", "20", "--window", "32000"],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks[count] = json.loads(done.stdout.splitlines()[-1])["after"]["peak"]
    assert peaks[80_000] < peaks[4_000] + 60, peaks  # MB; with all of it in lists 160
