import collections
import csv
import json
import os

import numpy as np
import pytest
import soundfile
from ml_collections import ConfigDict

from moejax.data.manifest import Manifest
from moejax.errors import BadValue
from moejax.training import describe, gated
from moejax.work import fields

RATE = 16000


class Folder:
    """A workdir that remembers what was logged."""

    def __init__(self, root):
        self.root, self.lines = root, []

    def path(self, *parts):
        return self.root.joinpath(*parts)

    def log(self, line):
        self.lines.append(line)

    def progress(self, iterable, total=None, desc=""):
        return iterable


def config(root, **data):
    cfg = ConfigDict(fields.defaults(describe.SECTIONS))
    with cfg.unlocked():
        cfg.data.update(ConfigDict({"source": "folder", "root": str(root), **data}))
    return cfg


def tone(seconds=1.0, rate=RATE, hertz=440.0):
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def corpus(root, extra=(), count=40):
    """`count` clean utterances of two speakers, and the files of `extra` (already written)."""
    root.mkdir()
    rows = [("file_name", "text", "speaker", "cohort")]
    for number in range(count):
        soundfile.write(root / f"{number}.wav", tone(hertz=200 + number), RATE)
        rows.append((f"{number}.wav", f"say {number % 7}", f"s{number % 2}", f"c{number % 2}"))
    for name, write in extra:
        write(root / name)
        rows.append((name, "odd one", "s0", "c0"))
    with open(root / "metadata.csv", "w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return root


def cut(path):
    soundfile.write(path, tone(), RATE)
    path.write_bytes(path.read_bytes()[:20000])


def nan(path):
    samples = tone()
    samples[7] = np.nan
    soundfile.write(path, samples, RATE, subtype="FLOAT")


REPAIRED = {
    "rate.wav": ("resampled", lambda p: soundfile.write(p, tone(rate=44100), 44100)),
    "stereo.wav": ("mixed", lambda p: soundfile.write(p, np.stack([tone(), tone()], 1), RATE)),
    "loud.wav": ("clipped", lambda p: soundfile.write(p, 4 * tone(), RATE, subtype="FLOAT")),
    "vorbis.ogg": ("decoded", lambda p: soundfile.write(p, tone(), RATE)),
    "pipe.wav": ("decoded", lambda p: patched(p, 0)),
}


def patched(path, size):
    """A WAV whose header declares another length."""
    soundfile.write(path, tone(), RATE)
    content = bytearray(path.read_bytes())
    content[40:44] = size.to_bytes(4, "little")
    path.write_bytes(content)


def half(path):
    soundfile.write(path, tone(), RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


REFUSED = {
    "cut_flac.flac": ("truncated", half),
    "cut_mp3.mp3": ("truncated", half),
    "cut_ogg.ogg": ("truncated", half),
    "declared.wav": ("wrong_length", lambda p: patched(p, 16000)),
    "nan.wav": ("nan", nan),
    "empty.wav": ("empty", lambda p: soundfile.write(p, tone()[:0], RATE)),
    "silent.wav": ("silent", lambda p: soundfile.write(p, 0 * tone(), RATE)),
    "long.wav": ("too_long", lambda p: soundfile.write(p, tone(3.0), RATE)),
    "short.wav": ("too_short", lambda p: soundfile.write(p, tone(0.02), RATE)),
    "cut.wav": ("truncated", cut),
    "words.wav": ("unreadable", lambda p: p.write_text("not audio")),
    "missing.wav": ("unreadable", lambda p: None),
    "int16_as_float.wav": ("wrong_scale", lambda p: soundfile.write(p, 32768 * tone(), RATE, subtype="FLOAT")),
}


@pytest.fixture
def hostile(tmp_path):
    extra = [(name, write) for name, (_, write) in (REPAIRED | REFUSED).items()]
    return corpus(tmp_path / "corpus", extra)


def test_a_hostile_corpus_is_repaired_or_skipped_under_named_reasons(tmp_path, hostile):
    work = Folder(tmp_path / "w")
    summary = describe.run(config(hostile, max_seconds=2.0, max_skipped_share=0.5), work)
    with open(work.path("describe/skipped.csv")) as stream:
        skipped = {row["id"]: row["reason"] for row in csv.DictReader(stream)}
    assert skipped == {name.rsplit(".", 1)[0]: reason for name, (reason, _) in REFUSED.items()}
    assert summary["fixes"] == collections.Counter(fix for fix, _ in REPAIRED.values())
    assert summary["skipped"]["unreadable"] == 2
    manifest = Manifest.load(work.path("describe/manifest.parquet"))
    assert manifest.digest() == summary["digest"]
    assert len(manifest) == summary["utterances"] == 40 + len(REPAIRED)
    for row in manifest.rows():
        info = soundfile.info(row["audio"])
        assert (info.samplerate, info.channels, info.format) in {(RATE, 1, "WAV"), (RATE, 1, "FLAC")}
        assert info.frames / RATE == pytest.approx(row["seconds"], abs=1e-3)
    written = {row["id"] for row in manifest.rows() if "describe" in row["audio"]}
    assert written == {name.rsplit(".", 1)[0] for name in REPAIRED}
    assert any("unreadable 2" in line and "too_long 1" in line for line in work.lines)
    assert any("mixed 1, resampled 1" in line for line in work.lines)


def test_reports_carry_the_groups_and_the_leakage(tmp_path):
    work = Folder(tmp_path / "w")
    root = corpus(tmp_path / "corpus")
    describe.run(config(root), work)
    summary = json.loads(work.path("describe/summary.json").read_text())
    assert [row["split"] for row in summary["split"]] == ["train", "dev", "test"]
    assert sum(row["utterances"] for row in summary["split"]) == 40
    assert {row["speaker"]: row["utterances"] for row in summary["speaker"]} == {"s0": 20, "s1": 20}
    assert all(row["dev"] and row["test"] for row in summary["speaker"])
    assert summary["hours"] == pytest.approx(40 / 3600, abs=1e-4)
    speakers = next(r for r in summary["leakage"] if (r["part"], r["other"], r["what"]) == ("test", "train", "speaker"))
    assert speakers["share"] == 1.0
    text = work.path("describe/summary.md").read_text()
    assert "| c0" in text and "| s1" in text
    assert "| recording" in work.path("describe/leakage.md").read_text()
    assert text.splitlines()[0] in work.lines


def test_a_corpus_without_speakers_and_cohorts_says_so(tmp_path):
    work = Folder(tmp_path / "w")
    root = corpus(tmp_path / "corpus")
    describe.run(config(root, columns={"speaker": "", "cohort": ""}), work)
    assert "The corpus names no speaker." in work.lines and "The corpus names no cohort." in work.lines
    assert set(Manifest.load(work.path("describe/manifest.parquet")).column("speaker")) == {""}


def test_too_many_skipped_stops_with_one_line_and_leaves_nothing(tmp_path, hostile):
    work = Folder(tmp_path / "w")
    with pytest.raises(
        ValueError, match=r"13 of 58 .*max_skipped_share=0.05: truncated 4, unreadable 2, .*wrong_length 1"
    ) as raised:
        describe.run(config(hostile, max_seconds=2.0), work)
    assert "\n" not in str(raised.value)
    assert not work.path("describe/manifest.parquet").exists()
    assert [path for path in (tmp_path / "w").rglob("*") if path.is_file()] == []


def test_the_same_corpus_gives_the_same_manifest_and_the_workdir_can_move(tmp_path):
    root = corpus(tmp_path / "corpus", [(name, write) for name, (_, write) in REPAIRED.items()])
    first = describe.run(config(root), Folder(tmp_path / "one"))
    assert describe.run(config(root), Folder(tmp_path / "two")) == first
    (tmp_path / "one").rename(tmp_path / "moved")
    manifest = Manifest.load(tmp_path / "moved/describe/manifest.parquet")
    assert manifest.digest() == first["digest"]
    assert all(os.path.exists(path) for path in manifest.audio_paths())


def test_shards_are_put_together_as_one_run_and_a_missing_one_is_named(tmp_path):
    root = corpus(tmp_path / "corpus", [(name, write) for name, (_, write) in REPAIRED.items()])
    whole = describe.run(config(root), Folder(tmp_path / "one"))
    work = Folder(tmp_path / "two")
    assert [describe.shard(config(root), work, (number, 3)) for number in (3, 1)] == [15, 15]
    with pytest.raises(BadValue, match="shard 2/3 is not finished, 15 utterances are not heard; run `moejax describe"):
        describe.run(config(root), work)
    assert not work.path("describe/manifest.parquet").exists()
    with pytest.raises(BadValue, match=r"--shard 2/4, but .* was begun in 3 shards"):
        describe.shard(config(root), work, (2, 4))
    lines = work.path("describe/heard.shard1.jsonl").read_text().splitlines(keepends=True)
    work.path("describe/heard.shard1.jsonl").write_text("".join(lines[:5]) + lines[5][:9])  # it was killed
    describe.shard(config(root), work, (2, 3))
    with pytest.raises(BadValue, match="shard 1/3 is not finished, 10 utterances"):
        describe.run(config(root), work)
    describe.shard(config(root), work, (1, 3))
    assert work.lines[-1] == "  shard 1/3: 5 of 15 utterances heard before"
    assert describe.run(config(root), work) == whole
    files = [
        {str(file.relative_to(tmp_path / name)): file.read_bytes() for file in (tmp_path / name).rglob("*.*")}
        for name in ("one", "two")
    ]
    assert files[0] == files[1] and len(files[0]) > 5


def test_a_second_run_leaves_no_audio_of_the_first(tmp_path):
    root = corpus(tmp_path / "corpus", [(name, write) for name, (_, write) in REPAIRED.items()])
    work = Folder(tmp_path / "w")
    describe.run(config(root), work)
    lines = (root / "metadata.csv").read_text().splitlines()
    (root / "metadata.csv").write_text("\n".join(line for line in lines if not line.startswith("stereo")) + "\n")
    describe.run(config(root), work)
    stored = {str(path) for path in work.path("describe/audio").rglob("*.flac")}
    audio = {path for path in Manifest.load(work.path("describe/manifest.parquet")).audio_paths() if "describe" in path}
    assert {os.path.realpath(path) for path in audio} == {os.path.realpath(path) for path in stored}
    assert len(stored) == len(REPAIRED) - 1


def test_the_input_digest_notices_text_files_and_options_but_not_a_second_look(tmp_path):
    root = corpus(tmp_path / "corpus")
    before = describe.inputs(config(root))
    assert describe.inputs(config(root)) == before
    assert describe.inputs(config(root, options={"text": "lower"})) != before
    stat = os.stat(root / "3.wav")
    os.utime(root / "3.wav", ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    touched = describe.inputs(config(root))
    assert touched != before
    table = (root / "metadata.csv").read_text()
    (root / "metadata.csv").write_text(table.replace("say 3", "say three"))
    assert describe.inputs(config(root)) != touched


def test_device_and_noise_are_described_and_change_nothing_where_no_device_is_known(tmp_path):
    root = corpus(tmp_path / "corpus")
    table = (root / "metadata.csv").read_text().splitlines()
    before, first = describe.inputs(config(root)), describe.run(config(root), Folder(tmp_path / "one"))
    (root / "metadata.csv").write_text("\n".join([table[0] + ",device", *(line + "," for line in table[1:])]) + "\n")
    assert describe.inputs(config(root)) == before
    phones = [line + (",phone" if i % 2 else ",laptop") for i, line in enumerate(table[1:])]
    (root / "metadata.csv").write_text("\n".join([table[0] + ",device", *phones]) + "\n")
    assert describe.inputs(config(root)) != before
    second = describe.run(config(root), Folder(tmp_path / "two"))
    one, two = (Manifest.load(tmp_path / name / "describe/manifest.parquet") for name in ("one", "two"))
    assert set(one.column("device")) == {""} and set(two.column("device")) == {"phone", "laptop"}
    assert second["content"] != first["content"]
    assert np.isfinite(one.column("snr")).all()
    unmeasured = {name: one.column(name).tolist() for name in one.table.column_names if name != "snr"}
    assert describe.content(Manifest.from_columns(unmeasured), []) == describe.content(one, [])  # as older ones have it


def test_the_input_digest_of_a_missing_folder_raises_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        describe.inputs(config(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"options": {"txt": "lower"}}, "source folder has no option 'txt'; it has metadata, text"),
        ({"columns": {"text": "words"}}, "no column 'words' .*; it has file_name, text, speaker, cohort"),
        ({"columns": {"id": "text"}}, "has the id 'say 0', as has"),
        ({"split": "cohort_heldout", "split_options": {"test_cohorts": ("c9",)}}, "no cohort 'c9'"),
    ],
)
def test_wrong_configs_stop_before_any_audio_is_read(tmp_path, data, words):
    root = corpus(tmp_path / "corpus")
    work = Folder(tmp_path / "w")
    with pytest.raises(ValueError, match=words):
        describe.run(config(root, **data), work)
    assert not (tmp_path / "w").exists()


def test_file_names_of_ids_are_safe_and_distinct():
    names = [gated.audio_name(name) for name in ("a/b", "a-b", "../../etc", "x" * 300, "ä é", "")]
    assert len(set(names)) == len(names)
    assert all(".." not in name and name.count("/") == 1 and len(name) < 120 and name.isascii() for name in names)


def test_unseen_speakers_are_heard_in_test_only(tmp_path):
    root = corpus(tmp_path / "corpus", count=60)
    work = Folder(tmp_path / "W")
    describe.run(config(root, unseen_speakers=("s1",)), work)
    manifest = Manifest.load(work.path("describe", "manifest.parquet"), root=work.root)
    parts = {name: set(manifest.column("split")[manifest.column("speaker") == name]) for name in ("s0", "s1")}
    assert parts == {"s0": {"train", "dev", "test"}, "s1": {"test"}}
    assert any("unseen speakers: s1" in line for line in work.lines)
