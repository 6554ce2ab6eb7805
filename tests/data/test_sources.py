import collections
import io
import json

import datasets
import numpy as np
import pytest
import soundfile

from moejax.audio import flaws, read
from moejax.data.sources import SOURCES, digits, folder, hf

RATE = 16000


def tone(seconds=0.5, hertz=440.0, rate=RATE):
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write(path, samples=None, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(rate=rate) if samples is None else samples, rate)


def test_the_registry_names_functions():
    speech = {"builtin", "folder", "hf", "digits", "arrayrecord", "webdataset", "commonvoice", "mandarin"}
    assert set(SOURCES) == speech | {"classes", "esc50", "urbansound8k", "ravdess", "cremad", "emodb"}
    assert all(callable(function) for function in SOURCES.values())


# folder


def test_csv_with_mapped_columns(tmp_path):
    write(tmp_path / "wav/a.wav")
    (tmp_path / "metadata.csv").write_text('file,words,who,gender\nwav/a.wav,"HELLO,  YOU",ann,f\n')
    columns = {"audio": "file", "text": "words", "speaker": "who", "cohort": "gender"}
    (one,) = folder.load(root=str(tmp_path), columns=columns, text="lower")
    assert (one.id, one.text, one.speaker, one.cohort, one.gender) == ("wav/a", "hello, you", "ann", "f", "f")
    assert one.audio == str(tmp_path / "wav/a.wav")
    (kept,) = folder.load(root=str(tmp_path), columns={**columns, "gender": ""})
    assert kept.text == "HELLO, YOU" and not kept.gender


def test_the_device_of_a_recording_is_read(tmp_path):
    (tmp_path / "metadata.csv").write_text("file,text,device\nwav/a.wav,hello,phone\n")
    assert folder.load(root=str(tmp_path))[0].device == "phone"


def test_tsv_and_byte_order_mark(tmp_path):
    (tmp_path / "metadata.tsv").write_text("\ufefffile_name\ttext\nx.wav\tone, two\n", encoding="utf-8")
    assert folder.load(root=str(tmp_path))[0].text == "one, two"


def test_audiofolder_with_a_table_in_each_part(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        row = {"file_name": "x.wav", "transcription": part}
        (tmp_path / part / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    found = {u.id: (u.split, u.text, u.audio) for u in folder.load(root=str(tmp_path))}
    assert found == {p + "/x": (p, p, str(tmp_path / p / "x.wav")) for p in ("train", "test")}


def test_nemo_manifest_with_segments(tmp_path):
    write(tmp_path / "long.wav", np.concatenate([tone(1.0, 300), tone(1.0, 900)]))
    rows = [{"audio_filepath": "long.wav", "text": "x", "offset": o, "duration": 0.5} for o in (0.0, 1.0, 1.9)]
    rows.append({"audio_filepath": str(tmp_path / "long.wav"), "text": "all", "duration": 2.0})
    (tmp_path / "manifest.json").write_text("\n".join(json.dumps(row) for row in rows))
    low, high, beyond, whole = folder.load(root=str(tmp_path), metadata="manifest.json")
    for utterance, hertz in ((low, 300), (high, 900)):
        samples, rate = utterance.audio()
        assert len(samples) == rate // 2
        assert np.abs(np.fft.rfft(samples)).argmax() * 2 == hertz
        assert utterance.audio.paths == (str(tmp_path / "long.wav"),)
    assert (low.id, high.id) == ("long@0", "long@1")
    with pytest.raises(flaws.Rejected, match="truncated"):
        beyond.audio()
    assert whole.audio == str(tmp_path / "long.wav")


@pytest.mark.parametrize("path", ["../x.wav", "/etc/passwd", "a/../../x.wav", "."])
def test_paths_that_leave_the_root_are_refused(tmp_path, path):
    (tmp_path / "metadata.csv").write_text(f"audio,text\n{path},x\n")
    with pytest.raises(ValueError, match="row 1: .* leads out of"):
        folder.load(root=str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "options", "words"),
    [
        ("other.txt", "", {}, "no table in .*; known names: metadata.csv"),
        ("metadata.csv", "file_name,text\na.wav,x\n", {"metadata": "mine.csv"}, "no table .*mine.csv"),
        ("metadata.csv", "file_name,words\na.wav,x\n", {}, "no column for text .*; it has file_name, words"),
        (
            "metadata.csv",
            "file_name,text\na.wav,x\n",
            {"columns": {"speaker": "who"}},
            "no column 'who' .*file_name, text",
        ),
        (
            "metadata.csv",
            "file_name,text\na.wav,x\n",
            {"columns": {"speeker": "text"}},
            "unknown field 'speeker'; known: id",
        ),
        ("metadata.csv", "file_name,text\na.wav\n", {}, "row 1 has not as many fields"),
        ("metadata.csv", "file_name,text\na.wav,x,y\n", {}, "row 1 has not as many fields"),
        ("metadata.csv", "file_name,text\n,x\n", {}, "row 1 has an empty 'file_name'"),
        ("metadata.csv", "file_name,text\n", {}, "no rows"),
        ("metadata.csv", "file_name,text\na.wav,x\n", {"text": "upper"}, "known: keep, lower"),
        ("metadata.jsonl", '{"file_name": "a", "text": "x"}\n{"file', {}, "line 2: "),
        ("metadata.jsonl", "[1]", {}, "row 1 is a int"),
    ],
)
def test_folder_errors_are_one_line(tmp_path, name, content, options, words):
    (tmp_path / name).write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as raised:
        folder.load(root=str(tmp_path), **options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("load", [folder.load, digits.load])
def test_a_missing_folder_is_named(load, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(root=str(tmp_path / "nowhere"))


# hf


def saved(tmp_path, count=3):
    def encode(hertz):
        stream = io.BytesIO()
        soundfile.write(stream, tone(hertz=hertz), RATE, format="WAV")
        return {"bytes": stream.getvalue(), "path": None}

    rows = {"audio": [encode(300 + 200 * i) for i in range(count)], "sentence": [f"S {i}" for i in range(count)]}
    one = datasets.Dataset.from_dict(rows).cast_column("audio", datasets.Audio())
    datasets.DatasetDict({"train": one, "validation": one}).save_to_disk(str(tmp_path / "set"))
    return str(tmp_path / "set")


def test_hf_folder_is_read_lazily_and_decoded_by_soundfile(tmp_path):
    path = saved(tmp_path)
    utterances = hf.load(path=path, text="lower")
    assert [u.id for u in utterances] == [f"{part}/{i}" for part in ("train", "validation") for i in range(3)]
    assert [u.split for u in utterances[2:4]] == ["train", "validation"]
    assert utterances[1].text == "s 1"
    samples, rate = read.read(utterances[1].audio)
    assert rate == RATE and np.abs(np.fft.rfft(samples)).argmax() * 2 == 500
    assert all(file.endswith(".arrow") for file in utterances[1].audio.paths) and utterances[1].audio.paths
    assert len(hf.load(path=path, split="validation")) == 3


def test_hf_errors(tmp_path):
    path = saved(tmp_path)
    with pytest.raises(ValueError, match="no part 'test'; it has train, validation"):
        hf.load(path=path, split="test")
    with pytest.raises(ValueError, match="no column 'words' .*; it has audio, sentence"):
        hf.load(path=path, columns={"text": "words"})
    with pytest.raises(FileNotFoundError, match="no dataset folder") as raised:
        hf.load(path=str(tmp_path / "nowhere"))
    assert "\n" not in str(raised.value)


# digits

NAMES = ("zero", "one", "two")


@pytest.fixture
def clips(tmp_path):
    """Every clip has a constant level of its own, so that the join shows which clips it was made of."""
    lines = ["file,text,digit,speaker,take,official_split,gender"]
    for number, (speaker, digit, take) in enumerate(
        (s, d, t) for s in ("ann", "bob") for d in range(3) for t in range(12)
    ):
        name = f"audio/{digit}_{speaker}_{take}.wav"
        level = (number + 1) / 100
        write(tmp_path / name, level * np.sign(np.sin(np.arange(800) * 0.5 + 0.1)).astype(np.float32), 8000)
        lines.append(f"{name},{NAMES[digit]},{digit},{speaker},{take},{'test' if take < 2 else 'train'},f")
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n")
    return str(tmp_path)


FEW = {"train": 40, "dev": 10, "test": 20}
COHORTS = {"A": ("ann",), "B": ("bob",)}


def test_digit_strings_are_of_one_speaker_and_say_what_the_text_says(clips):
    utterances = digits.load(root=clips, cohorts=COHORTS, strings_per_speaker=FEW)
    assert collections.Counter((u.cohort, u.split) for u in utterances) == {
        (cohort, part): count for cohort in "AB" for part, count in FEW.items()
    }
    for utterance in utterances:
        names = [path.rsplit("/", 1)[1].split("_") for path in utterance.audio.paths]
        assert 1 <= len(names) <= 4
        assert {speaker for _, speaker, _ in names} == {utterance.speaker}
        assert utterance.text == " ".join(NAMES[int(digit)] for digit, _, _ in names)
        assert utterance.cohort == {"ann": "A", "bob": "B"}[utterance.speaker]
    assert {len(u.audio.paths) for u in utterances} == {1, 2, 3, 4}


def test_no_clip_is_heard_in_two_parts_and_official_test_clips_are_test(clips):
    heard = collections.defaultdict(set)
    for utterance in digits.load(root=clips, strings_per_speaker=FEW):
        heard[utterance.split].update(utterance.audio.paths)
    assert not (heard["train"] & heard["test"] or heard["train"] & heard["dev"] or heard["dev"] & heard["test"])
    official = {path for path in heard["train"] | heard["dev"] if path.endswith(("_0.wav", "_1.wav"))}
    assert not official
    for part, paths in heard.items():
        assert {path.rsplit("/", 1)[1][:5] for path in paths} == {
            f"{d}_{s}" for d in range(3) for s in ("ann", "bob")
        }, part


def test_digit_strings_repeat_from_the_seed_and_more_strings_keep_the_first(clips):
    def key(utterances):
        return {u.id: (u.text, u.audio) for u in utterances}

    first = key(digits.load(root=clips, strings_per_speaker=FEW))
    assert key(digits.load(root=clips, strings_per_speaker=FEW)) == first
    more = key(digits.load(root=clips, strings_per_speaker=FEW | {"train": 60}))
    assert {name: more[name] for name in first} == first
    assert key(digits.load(root=clips, strings_per_speaker=FEW, seed=1)) != first


def test_every_clip_is_used_before_one_is_used_again(clips):
    strings = [u.audio.paths for u in digits.load(root=clips, strings_per_speaker=FEW) if u.id.startswith("ann-train")]
    counts = collections.Counter(path for paths in strings for path in paths)
    assert max(counts.values()) - min(counts.values()) <= 2


def test_a_joined_string_is_its_clips_with_pauses_between(clips):
    utterance = next(u for u in digits.load(root=clips, strings_per_speaker=FEW) if len(u.audio.paths) == 3)
    samples, rate = read.read(utterance.audio)
    pauses = [round(pause * rate) for pause in utterance.audio.pauses]
    assert rate == 8000 and len(samples) == 3 * 800 + sum(pauses)
    assert all(400 <= pause <= 1600 for pause in pauses)
    assert not samples[800 : 800 + pauses[0]].any() and samples[800 + pauses[0]] != 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cohorts": {"A": ("carl",)}}, "no speaker 'carl' .*; there are ann, bob"),
        ({"cohorts": {"A": ("ann",), "B": ("ann",)}}, "'ann' stands in cohorts A and B"),
        ({"strings_per_speaker": {"train": 3}}, "it needs train, dev, test"),
        ({"min_digits": 5}, "needs 1 <= min <= max"),
        ({"pause_seconds": (0.2, 0.1)}, "needs .shortest, longest."),
    ],
)
def test_digit_errors(clips, options, words):
    with pytest.raises(ValueError, match=words):
        digits.load(root=clips, **options)
