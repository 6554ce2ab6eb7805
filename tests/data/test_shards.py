"""Packed corpora: what goes in comes out, whatever the source, the number of workers and the kills on the way."""

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import packed_corpus as corpus
import pytest
import soundfile

from moejax.__main__ import guarded
from moejax.audio import flaws, read, records
from moejax.audio.cache import AudioCache
from moejax.data.shards import packing, source, table, workers
from moejax.data.sources import arrayrecord, folder, webdataset
from moejax.errors import AlreadyThere, BadValue, NotThere

POINTS = ("pack.record:9", "pack.shard:2", "pack.standing", "pack.listed", "artifact.partial:2", "pack.index")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(the folder, its rows, what it was packed to)."""
    home = tmp_path_factory.mktemp("shards")
    rows = corpus.write(home / "source")
    outcome = corpus.packed(home / "source", home / "packed")
    assert (outcome.records, outcome.bad, outcome.before) == (corpus.COUNT, 0, False) and outcome.shards > 2
    return home / "source", rows, home / "packed"


def content(folder):
    """Everything but what the index says of where it came from."""
    index = json.loads((folder / table.INDEX).read_text())
    return {**corpus.files(folder), table.INDEX: {name: index[name] for name in index if name != "made_from"}}


def test_a_folder_comes_back_bit_for_bit(made):
    root, rows, out = made
    found = arrayrecord.load(root=str(out))
    assert [one.id for one in found] == [row["id"] for row in rows]
    for number, (row, one) in enumerate(zip(rows, found, strict=True)):
        record = records.fetch(*records.parted(one.audio))
        original, rate = soundfile.read(root / row["file"], dtype="int32")
        again, same_rate = soundfile.read(io.BytesIO(record.audio), dtype="int32")
        assert np.array_equal(original, again) and rate == same_rate == record.fields["rate"]
        assert one.text == row["text"] == record.fields["text"]
        assert (one.speaker, one.cohort) == (row["speaker"], row["cohort"])
        assert one.language == record.fields["language"] == ("de" if number == 2 else "en")
        assert record.fields["further"] == {"age": row["age"]}
    assert found.numbers("channels").tolist() == [2 if number == 4 else 1 for number in range(len(rows))]
    assert records.fetch(*records.parted(found.audio(3))).audio == (root / rows[3]["file"]).read_bytes()


def test_what_is_measured_is_what_the_gate_says_of_the_record(made):
    _, _, out = made
    found = arrayrecord.load(root=str(out))
    for row in range(len(found)):
        checked = read.load(found.audio(row))
        for name, value in {"seconds": checked.seconds, "silence": checked.silence_share, "snr": checked.snr}.items():
            assert found.numbers(name)[row] == value
        assert found.table.column("fixes")[row].as_py() == ",".join(checked.fixes)


def test_every_source_makes_the_same_shards(made, tmp_path):
    root, rows, out = made
    corpus.tar(root, rows, tmp_path / "all.tar")
    corpus.packed(tmp_path / "all.tar", tmp_path / "from_tar", "webdataset")
    corpus.packed(root / "metadata.csv", tmp_path / "from_table", "manifest")
    kept = [name for name in rows[0] if name != "file"]
    columns = {"audio": [{"bytes": (root / row["file"]).read_bytes(), "path": None} for row in rows]}
    whole = datasets.Dataset.from_dict(columns | {name: [row[name] for row in rows] for name in kept})
    for number, part in enumerate((whole.select(range(6)), whole.select(range(6, len(rows))))):
        part.save_to_disk(tmp_path / f"chunks/{number}")  # of the layout in which nothing was shuffled
    corpus.packed(tmp_path / "chunks", tmp_path / "from_chunks", "hf")
    expected = content(out)
    assert content(tmp_path / "from_tar") == content(tmp_path / "from_table") == expected
    chunks = arrayrecord.load(root=str(tmp_path / "from_chunks"))
    assert [one.split for one in chunks] == ["train"] * len(rows)  # a dataset's rows always have a part
    names = [entry["name"] for entry in table.read_index(out)["shards"]]
    for row, one in enumerate(chunks):
        ours = records.fetch(*records.parted(one.audio))
        assert ours.fields.pop("split") == "train"
        assert ours == records.fetch(*records.parted(arrayrecord.load(root=str(out)).audio(row)))
    assert len(names) == 4
    assert [source.guessed(str(place)) for place in (root, tmp_path / "all.tar", root / "metadata.csv")] == [
        "folder",
        "webdataset",
        "manifest",
    ]
    assert source.guessed(str(tmp_path / "chunks")) == "hf"


def test_parquet_is_streamed(made, tmp_path):
    root, rows, _ = made
    columns = {"audio": [{"bytes": (root / row["file"]).read_bytes(), "path": None} for row in rows[:3]]}
    columns |= {"sentence": ["one", "two", "three"]}
    (tmp_path / "in").mkdir()
    datasets.Dataset.from_dict(columns).to_parquet(tmp_path / "in/train.parquet")
    taken = source.Source("hf", str(tmp_path / "in"), {})
    packing.pack(taken.utterances(), tmp_path / "out", made_from=taken.described())
    assert [(one.id, one.text) for one in arrayrecord.load(root=str(tmp_path / "out"))] == [
        ("train/0", "one"),
        ("train/1", "two"),
        ("train/2", "three"),
    ]


def test_tars_are_a_source_of_their_own(made, tmp_path):
    root, rows, _ = made
    corpus.tar(root, rows, tmp_path / "a.tar")
    ours = webdataset.load(root=str(tmp_path))
    assert [(one.id, one.text, one.speaker) for one in ours] == [
        (row["id"], row["text"], row["speaker"]) for row in rows
    ]
    samples, rate = ours[4].audio()
    assert np.array_equal(samples, read.read(str(root / rows[4]["file"]))[0]) and rate == corpus.RATES[1]
    (tmp_path / "b.tar.gz").write_bytes(b"")
    with pytest.raises(BadValue, match="b.tar.gz is compressed"):
        webdataset.load(root=str(tmp_path))
    (tmp_path / "b.tar.gz").unlink()
    (tmp_path / "b.tar").write_bytes(b"no tar at all")
    with pytest.raises(BadValue, match="b.tar is no tar, or damaged"):
        webdataset.load(root=str(tmp_path))
    with pytest.raises(NotThere, match="no folder or tar"):
        webdataset.load(root=str(tmp_path / "nowhere"))


def test_the_number_of_workers_changes_no_byte(made, tmp_path):
    root, _, out = made
    for processes in (1, 2):
        corpus.packed(root, tmp_path / str(processes), processes=processes)
        assert corpus.files(tmp_path / str(processes)) == corpus.files(out)


def start(root, out, fault=""):
    code = f"import packed_corpus as c; c.packed(c.Path({str(root)!r}), c.Path({str(out)!r}))"
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "MOEJAX_FAULT": fault}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=Path(__file__).parents[2])


@pytest.mark.faults
def test_killed_anywhere_and_gone_on_with_it_is_the_same(made, tmp_path):
    root, _, out = made
    for point in POINTS:
        assert start(root, tmp_path / "killed", f"{point}=kill").wait() == -signal.SIGKILL, point
        left = [path.name for path in (tmp_path / "killed").iterdir()]
        for name in (name for name in left if name.endswith(records.SUFFIX)):
            assert (tmp_path / "killed" / name).read_bytes() == (out / name).read_bytes()  # whole, or not there
        with pytest.raises(NotThere, match="is not finished"):
            arrayrecord.load(root=str(tmp_path / "killed"))
    assert start(root, tmp_path / "killed").wait() == 0
    assert corpus.files(tmp_path / "killed") == corpus.files(out)


@pytest.mark.faults
def test_killed_at_random_moments(made, tmp_path):
    root, _, out = made
    began = time.monotonic()
    assert start(root, tmp_path / "whole").wait() == 0
    took, rng, kills = time.monotonic() - began, random.Random(0), 0
    for share in (0.4, 0.7, 0.95):  # the first run may have compiled or read what the others find
        process = start(root, tmp_path / "killed")
        time.sleep(took * share * rng.uniform(0.9, 1.1))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert start(root, tmp_path / "killed").wait() == 0
    assert kills and corpus.files(tmp_path / "killed") == corpus.files(out)


def test_bad_recordings_are_listed_and_left_out(tmp_path):
    rows = corpus.write(tmp_path / "in", 6)
    (tmp_path / "in" / rows[0]["file"]).write_bytes(b"no sound")
    (tmp_path / "in" / rows[2]["file"]).unlink()
    cut = tmp_path / "in" / rows[5]["file"]
    cut.write_bytes(cut.read_bytes()[:9000])
    outcome = corpus.packed(tmp_path / "in", tmp_path / "out")
    assert (outcome.records, outcome.bad) == (3, 3)
    with open(tmp_path / "out" / table.BAD, newline="") as file:
        bad = {row["id"]: row["reason"] for row in csv.DictReader(file)}
    assert bad == {"u00": "unreadable", "u02": "unreadable", "u05": "truncated"}
    assert [one.id for one in arrayrecord.load(root=str(tmp_path / "out"))] == ["u01", "u03", "u04"]


def test_tables_are_read_row_by_row_as_before(tmp_path):
    def rows(content, name="t.csv"):
        (tmp_path / name).write_bytes(content)
        return list(folder.each_row(tmp_path / name))

    two = [{"file": "a.wav", "text": "one\ntwo"}, {"file": "b.wav", "text": "ä, b"}]
    assert rows('\ufefffile,text\r\na.wav,"one\r\ntwo"\r\nb.wav,"ä, b"\r\n'.encode()) == two
    assert rows('file,text\ra.wav,"one\rtwo"\rb.wav,"ä, b"'.encode()) == two  # an old Mac's
    assert rows('file\ttext\na.wav\t"one\ntwo"\nb.wav\tä, b\n'.encode()) == two
    assert rows(json.dumps(two).encode(), "t.json") == two
    assert rows(("\n\n" + "\n".join(map(json.dumps, two))).encode(), "t.jsonl") == two
    for content, name, said in (
        (b"", "t.csv", "no rows"),
        (b"file,text\n", "t.csv", "no rows"),
        (b"file,text\na,\xff\n", "t.csv", r"line 2 is not UTF-8 .byte 0xff"),
        (b"file,text\na,\0\n", "t.csv", "line 2 has a NUL byte"),
        (b"file,text\na\n", "t.csv", "row 1 has not as many fields as the header .2"),
        (b"file,file\na,b\n", "t.csv", "the column 'file' stands twice"),
        (b'file,text\na,"b\n', "t.csv", r"line \d: "),
        (b'{"a": 1}\n\n[2', "t.jsonl", "line 3: "),
        (b'{"a": 1}\n2', "t.jsonl", "row 2 is a int, not an object"),
    ):
        with pytest.raises(BadValue, match=said):
            rows(content, name)


def test_paths_lead_downwards_only(tmp_path):
    root, base = str(tmp_path), str(tmp_path / "train")
    for path in ("a.wav", "x/y.wav", "./a.wav", "x//y.wav", "x/../a.wav", "../dev/a.wav", f"{root}/a.wav"):
        expected = os.path.abspath(os.path.join(base, path))
        assert folder.inside(root, base, path, where="row 1") == expected
    assert folder.inside("/", base, "../../a.wav", where="row 1") == str(tmp_path.parent / "a.wav")
    for path in ("../../a.wav", "/etc/passwd", "x/../../../a.wav", ".."):
        with pytest.raises(BadValue, match="row 1: .* leads out of"):
            folder.inside(root, base, path, where="row 1")


def test_bits_are_kept_as_far_as_flac_has_them():
    rng = np.random.default_rng(0)
    whole, fine = rng.integers(-9999, 9999, 4000).astype(np.int16), rng.uniform(-1, 1, 4000)
    for samples, subtype in ((whole, "PCM_16"), (fine, "PCM_24")):
        made = workers.one(packing.Utterance(id="x", audio=lambda s=samples: (s, 8000), text="t"))
        assert soundfile.info(io.BytesIO(records.decoded(made.record).audio)).subtype == subtype
    loud = packing.Utterance(id="x", audio=lambda: (np.full(4000, 32000.0, np.float32), 8000), text="t")
    assert workers.one(loud).reason == "wrong_scale"
    assert workers.one(packing.Utterance(id="x", audio=lambda: (np.zeros(4000, np.int64), 8000), text="t")).reason == (
        "wrong_scale"
    )


def test_damage_is_told_by_the_name_of_the_shard(made, tmp_path):
    _, _, out = made
    for path in out.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    found, shard = arrayrecord.load(root=str(tmp_path)), tmp_path / "00001.arrayrecord"
    table.verify(tmp_path)
    whole = shard.read_bytes()
    audio = records.fetch(str(shard), 0).audio
    at = whole.index(audio) + len(audio) // 2
    shard.write_bytes(whole[:at] + bytes(255 - byte for byte in whole[at : at + 9]) + whole[at + 9 :])
    row = next(row for row in range(len(found)) if found.audio(row) == f"{shard}#0")
    with pytest.raises(flaws.Rejected, match=r"^unreadable: 00001\.arrayrecord: record 0 is damaged"):
        read.load(found.audio(row))
    with pytest.raises(BadValue, match=r"00001\.arrayrecord#0: .*record 0 is damaged") as refused:
        AudioCache([found.audio(row)])[0]
    assert "\n" not in str(refused.value)
    read.load(found.audio(row + 1))  # its neighbours are what they were
    with pytest.raises(BadValue, match=r"00001\.arrayrecord: damaged, its SHA-256"):
        table.verify(tmp_path)
    shard.write_bytes(whole[:-40])
    with pytest.raises(BadValue, match=r"00001\.arrayrecord has \d+ bytes, not \d+: a damaged shard"):
        arrayrecord.load(root=str(tmp_path))
    shard.unlink()
    with pytest.raises(BadValue, match=r"00001\.arrayrecord is missing"):
        arrayrecord.load(root=str(tmp_path))
    (tmp_path / "00000.arrow").write_bytes(b"nothing")
    shard.write_bytes(whole)
    with pytest.raises(BadValue, match=r"00000\.arrow is damaged"):
        arrayrecord.load(root=str(tmp_path))


def test_a_record_that_is_another_is_not_heard():
    content = bytearray(records.encoded({"id": "a"}, b"fLaC and so on"))
    assert records.decoded(bytes(content)).fields["id"] == "a"
    content[-1] ^= 1
    with pytest.raises(ValueError, match="SHA-256"):
        records.decoded(bytes(content))
    with pytest.raises(ValueError, match="not a record"):
        records.decoded(b"\xff\xff\xff\xff")


def test_what_cannot_be_packed_is_refused_in_one_line(made, tmp_path):
    root, rows, out = made
    assert corpus.packed(root, out).before  # again: nothing to do
    with pytest.raises(AlreadyThere, match="packed from something else"):
        corpus.packed(root, out, shard_bytes=50_000)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/note.txt").write_text("mine")
    with pytest.raises(AlreadyThere, match="is not empty .note.txt"):
        corpus.packed(root, tmp_path / "full")
    twice = [packing.Utterance(id="a", audio=str(root / rows[0]["file"]), text="t")] * 2
    with pytest.raises(BadValue, match="id 'a' stands in more than one row"):
        packing.pack(twice, tmp_path / "twice", made_from={})
    assert not (tmp_path / "twice").exists()  # so that the command can be given again, put right
    with pytest.raises(BadValue, match="the source has no rows"):
        packing.pack([], tmp_path / "none", made_from={})
    with pytest.raises(BadValue, match="cannot use any of 1 rows, such as /nowhere"):
        packing.pack([packing.Utterance(id="a", audio="/nowhere", text="t")], tmp_path / "bad", made_from={})


def test_a_source_that_changed_is_not_gone_on_with(made, tmp_path, monkeypatch):
    root, rows, _ = made
    utterances = list(folder.load(root=str(root), columns={"audio": "file"}))
    monkeypatch.setattr(packing, "_finish", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        packing.pack(utterances, tmp_path / "out", made_from={"of": 1}, shard_bytes=60_000)
    monkeypatch.undo()
    with pytest.raises(AlreadyThere, match="another packing was begun there: of was 1, is 2"):
        packing.pack(utterances, tmp_path / "out", made_from={"of": 2}, shard_bytes=60_000)
    with pytest.raises(BadValue, match="the source changed since this packing was begun"):
        packing.pack(utterances[1:], tmp_path / "out", made_from={"of": 1}, shard_bytes=60_000)


def test_the_command(made, tmp_path, capsys):
    root, _, _ = made
    line = ["pack", str(root), str(tmp_path / "out"), "--columns", "audio=file", "--workers", "0"]
    assert guarded(line) == 0 and "14 utterances, 0.00 h in 1 shard" in capsys.readouterr().out
    assert guarded(line) == 0 and "was packed before" in capsys.readouterr().out
    assert guarded(["pack", "--verify", str(tmp_path / "out")]) == 0
    assert "all 1 shards are as they were packed" in capsys.readouterr().out
    for wrong, said in {
        ("pack", str(root)): "wants SOURCE and DEST",
        ("pack", str(root), "x", "--source", "zip"): "--source 'zip': folder, hf, webdataset, manifest",
        ("pack", str(root), "x", "--columns", "word=x"): "FIELD is one of id, audio, text",
        ("pack", str(tmp_path / "none"), "x"): "no file or folder",
        ("pack", str(tmp_path / "out"), "x"): "is packed already",
        ("pack", str(root / "wav"), "x"): "has no table (metadata.csv, .tsv, .jsonl), no .tar, no .arrow",
        ("pack", str(root), "x", "--split", "train"): "--split is for hf alone",
        ("pack", str(root), "x", "--shard_megabytes", "0"): "--shard_megabytes 0: 1 to 100000",
        ("pack", "--verify", str(root)): "no index.json",
    }.items():
        assert guarded(list(wrong)) == 1
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1, err
    assert not Path("x").exists()
