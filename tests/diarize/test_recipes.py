"""Recipes on small folders of each corpus' layout: what is read, what is refused, and what is written."""

import contextlib
import csv
import json

import numpy as np
import pytest
import soundfile

from moejax.__main__ import guarded
from moejax.data.sources import folder as folder_source
from moejax.diarize import lhotse
from moejax.diarize.recipes import single, table, transcripts, written
from moejax.diarize.turns import Said, Turn, read_rttm, read_stm, read_uem, write_rttm, write_uem
from moejax.errors import AlreadyThere, BadValue, NotThere
from moejax.runtime.files import read_json

RATE, SECONDS = 8000, 6.0
TURNS = [Turn(0.5, 2.0, "ann"), Turn(1.5, 3.0, "bob"), Turn(4.0, 5.0, "ann")]
WORDS = [Said(0.5, 2.0, "ann", "one two"), Said(1.5, 3.0, "bob", "three"), Said(4.0, 5.0, "ann", "four")]


def sound(path, channels=1, seconds=SECONDS):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros((round(seconds * RATE), channels), np.float32), RATE, subtype="PCM_16")


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def references(root, rttm, name, turns=TURNS, uem=None):
    write_rttm(root / rttm, {name: turns})
    if uem:
        write_uem(root / uem, {name: [(0.0, 5.5)]})


def ami(root, microphone="Mix-Headset"):
    for part, name in (("train", "ES2002a"), ("test", "ES2004a")):
        top = root / "AMI-diarization-setup"
        references(top, f"only_words/rttms/{part}/{name}.rttm", name, uem=f"uems/{part}/{name}.uem")
        sound(root / f"amicorpus/{name}/audio/{name}.{microphone}.wav")


def voxconverse(root):
    references(root, "dev/abjxc.rttm", "abjxc")
    sound(root / "dev/audio/abjxc.wav")
    references(root, "test/aepyx.rttm", "aepyx")
    sound(root / "voxconverse_test_wav/aepyx.wav")


def dihard3(root):
    for part, name in (("dev", "DH_DEV_0001"), ("eval", "DH_EVAL_0001")):
        data = root / f"third_dihard_challenge_{part}"
        references(data, f"data/rttm/{name}.rttm", name, uem=f"data/uem/{name}.uem")
        sound(data / f"data/flac/{name}.flac")
        text(data / "docs/recordings.tbl", f"uri in_core lang domain source a b c d\n{name} True eng x y 1 2 3 4\n")


def msdwild(root):
    for part, name in (("few.train", "00001"), ("few.val", "00002"), ("many.val", "00003")):
        references(root, f"rttms/{part}.rttm", name)
        sound(root / f"wav/{name}.wav")


def ava_avd(root):
    for part, name in (("train", "-Fa_c_01"), ("val", "2Xe_c_01"), ("test", "tt0_c_01")):
        film = [turn._replace(start=turn.start + 900, end=turn.end + 900) for turn in TURNS]
        references(root, f"dataset/rttms/{name}.rttm", name, film)
        text(root / f"dataset/split/{part}.list", f"{name}\n")
        sound(root / f"dataset/waves/{name}.wav")
    text(root / "dataset/split/offsets.txt", "-Fa_c_01 900.0\n2Xe_c_01 900.0\ntt0_c_01 900.0\n")


def tier(name, spans):
    lines = [f'        name = "{name}"\n        xmin = 0\n        xmax = 6\n        intervals: size = {len(spans)}\n']
    for number, (start, end, words) in enumerate(spans, 1):
        lines.append(
            f"        intervals [{number}]:\n            xmin = {start}\n            xmax = {end}\n"
            f'            text = "{words}"\n'
        )
    return "".join(lines)


def grid(*tiers):
    head = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 6\ntiers? <exists>\n'
    items = [f'    item [{n}]:\n        class = "IntervalTier"\n{one}' for n, one in enumerate(tiers, 1)]
    return head + f"size = {len(tiers)}\nitem []:\n" + "".join(items)


def aishell4(root):
    content = grid(
        tier("ann", [(0, 0.5, ""), (0.5, 2.0, "one two"), (2.0, 4.0, "<sil>"), (4.0, 5.0, "four")]),
        tier("bob", [(1.5, 3.0, "three")]),
    )
    for part, name in (("train_L", "20200616_M_R001S01C01"), ("test", "L_R003S01C02")):
        text(root / f"{part}/TextGrid/{name}.TextGrid", content)
        sound(root / f"{part}/wav/{name}.flac", channels=8)


def icsi(root):
    content = """<Meeting Session="Bmr021"><Transcript StartTime="0" EndTime="6">
        <Segment StartTime="0.5" EndTime="2.0" Participant="ann">one <Emphasis>two</Emphasis></Segment>
        <Segment StartTime="1.5" EndTime="3.0" Participant="bob"><Comment Description="quiet"/>three</Segment>
        <Segment StartTime="3.0" EndTime="3.5" Participant="bob"><VocalSound Description="laugh"/></Segment>
        <Segment StartTime="3.5" EndTime="4.0"><NonVocalSound Description="door"/></Segment>
        <Segment StartTime="4.0" EndTime="5.0" Participant="ann">four<Pause/></Segment></Transcript></Meeting>"""
    for name in ("Bmr021", "Bed002"):
        text(root / f"transcripts/{name}.mrt", content)
        sound(root / f"Signals/{name}.interaction.wav")
        sound(root / f"{name}/chan6.wav")
    text(root / "transcripts/preambles.mrt", "not a meeting")


def chime6(root):
    def segment(start, end, who, words):
        return {"start_time": start, "end_time": end, "speaker": who, "words": words, "session_id": "S02"}

    content = [
        segment("0:00:00.50", "0:00:02.00", "ann", "one two [laughs]"),
        segment("0:00:01.50", "0:00:03.00", "bob", "three"),
        segment("0:00:03.00", "0:00:03.50", "bob", "[noise]"),
        segment("0:00:04.00", "0:00:03.90", "bob", "never"),
        segment("0:00:04.00", "0:00:05.00", "ann", "four"),
    ]
    for part, name in (("dev", "S02"), ("eval", "S01")):
        text(root / f"CHiME6/transcriptions/{part}/{name}.json", json.dumps(content))
        sound(root / f"CHiME6/audio/{part}/{name}_U02.CH1.wav")
        sound(root / f"CHiME6/audio/{part}/{name}_U03.CH1.wav")
    write_uem(root / "CHiME6/uem/dev/all.uem", {"S02": [(0.0, 5.5)]})


def libricss(root):
    rows = [f"{one.start}\t{one.end}\t{one.speaker}\tu\t{one.text.upper()}\n" for one in WORDS]
    for condition, session in (("0L", 0), ("OV10", 3)):
        top = root / f"for_release/{condition}/overlap_ratio_10.0_sil0.1_1.0_session{session}_actual10.1"
        text(top / "transcription/meeting_info.txt", "start\tend\tspeaker\tutterance\ttranscription\n" + "".join(rows))
        sound(top / "record/raw_recording.wav", channels=7)


def anything(root):
    references(root, "train/talk.rttm", "inside", uem="train/talk.uem")
    sound(root / "sounds/talk.wav")


TALKS = {
    "ami": (ami, {"train": ["ES2002a"], "test": ["ES2004a"]}),
    "ami_far": (lambda root: ami(root, "Array1-01"), {"train": ["ES2002a"], "test": ["ES2004a"]}),
    "icsi": (icsi, {"train": ["Bed002"], "dev": ["Bmr021"]}),
    "icsi_far": (icsi, {"train": ["Bed002"], "dev": ["Bmr021"]}),
    "aishell4": (aishell4, {"train": ["20200616_M_R001S01C01"], "test": ["L_R003S01C02"]}),
    "voxconverse": (voxconverse, {"dev": ["abjxc"], "test": ["aepyx"]}),
    "ava_avd": (ava_avd, {"train": ["-Fa_c_01"], "dev": ["2Xe_c_01"], "test": ["tt0_c_01"]}),
    "msdwild": (msdwild, {"train": ["00001"], "dev": ["00002"], "test": ["00003"]}),
    "dihard3": (dihard3, {"dev": ["DH_DEV_0001"], "test": ["DH_EVAL_0001"]}),
    "chime6": (chime6, {"dev": ["S02"], "test": ["S01"]}),
    "libricss": (libricss, {"dev": ["0L_session0"], "test": ["OV10_session3"]}),
    "folder": (anything, {"train": ["talk"]}),
}
SPOKEN = ("icsi", "icsi_far", "aishell4", "chime6", "libricss")
SCORED = ("ami", "ami_far", "dihard3", "folder")  # and one of chime6


@pytest.mark.parametrize("name", TALKS)
def test_a_corpus_of_talks_is_read_and_written(tmp_path, name):
    build, parts = TALKS[name]
    build(tmp_path / "corpus")
    place = table.place(name, tmp_path / "corpus")
    cards = written.write_talks(place, tmp_path / "out")
    assert list(cards) == list(parts)
    for part, names in parts.items():
        assert cards[part]["recordings"] == len(names) and cards[part]["turns"] == 3
        assert cards[part]["speakers"] == {"least": 2, "mean": 2.0, "most": 2}
        assert cards[part]["silent"] == pytest.approx(2.5 / 6, abs=1e-3)
        assert cards[part]["overlapped_of_speech"] == pytest.approx(0.5 / 3.5, abs=1e-3)
        held = lhotse.read(tmp_path / "out" / part / "recordings.jsonl.gz", "recording")
        assert [one["id"] for one in held] == names and held[0]["num_samples"] == RATE * SECONDS
        for one in names:
            turns = read_rttm(tmp_path / "out" / part / f"{one}.rttm")[one]
            assert [(turn.start, turn.end, turn.speaker.rpartition("-")[2]) for turn in turns] == TURNS
            words = tmp_path / "out" / part / f"{one}.stm"
            assert words.exists() == (name in SPOKEN)
            if name in SPOKEN:
                said = [one.text.lower() for one in read_stm(words)[one]]
                assert said == ["one two", "three", "four"]
            uem = tmp_path / "out" / part / f"{one}.uem"
            assert uem.exists() == (name in SCORED or one == "S02")
            assert not uem.exists() or read_uem(uem)[one] == [(0.0, 5.5)]
    assert read_json(tmp_path / "out" / "card.json")["parts"] == json.loads(json.dumps(cards))
    with pytest.raises(AlreadyThere, match="out is there already"):
        written.write_talks(place, tmp_path / "out")


@pytest.mark.parametrize("name", [name for name in TALKS if name not in ("icsi_far", "ami_far")])
def test_sound_that_is_missing_or_of_another_recording_is_named(tmp_path, name):
    TALKS[name][0](tmp_path / "corpus")
    place = table.place(name, tmp_path / "corpus")
    lost = list(table.find(name).read(place))[-1].audio
    if name == "chime6":  # another array would do
        lost.with_name(lost.name.replace("U02", "U03")).unlink()
    if name in ("ami", "icsi", "folder"):
        assert len(list(table.find(name).read(place))) in (1, 2)
    lost.unlink()
    with pytest.raises(NotThere, match=rf"has no .*; {name} has "):
        written.write_talks(place, tmp_path / "out")
    sound(lost, seconds=2.5)
    with pytest.raises(BadValue, match=r"lasts 2\.5 s, and the turns of \S+ reach 5\.0 s"):
        written.write_talks(place, tmp_path / "out")
    lost.write_bytes(b"not a sound")
    with pytest.raises(BadValue, match="is no sound that can be read"):
        written.write_talks(place, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


def test_what_is_not_there_is_told_with_the_layout(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadValue, match=r"empty has no recordings; msdwild has rttms/few\.train\.rttm"):
        written.write_talks(table.place("msdwild", tmp_path / "empty"), tmp_path / "out")
    with pytest.raises(NotThere, match=r"no folder .*gone; ami has only_words"):
        table.place("ami", tmp_path / "gone")
    with pytest.raises(BadValue, match="unknown recipe 'amy'; known: ami, ami_far, icsi"):
        table.find("amy")
    ava_avd(tmp_path / "ava")
    text(tmp_path / "ava/dataset/split/offsets.txt", "-Fa_c_01 900.0\n")
    with pytest.raises(BadValue, match=r"offsets.txt has no 2Xe_c_01"):
        written.write_talks(table.place("ava_avd", tmp_path / "ava"), tmp_path / "out")


def test_a_turn_may_end_a_little_behind_the_sound(tmp_path):
    voxconverse(tmp_path / "corpus")
    references(tmp_path / "corpus", "dev/abjxc.rttm", "abjxc", [*TURNS, Turn(5.5, 6.4, "bob"), Turn(6.1, 6.2, "ann")])
    written.write_talks(table.place("voxconverse", tmp_path / "corpus"), tmp_path / "out")
    assert read_rttm(tmp_path / "out/dev/abjxc.rttm")["abjxc"][-1] == Turn(5.5, 6.0, "bob")


@pytest.mark.parametrize(
    ("read", "content", "words"),
    [
        (transcripts.text_grid, "plain words", "is no TextGrid"),
        (transcripts.text_grid, grid(tier("a", [(3, 2, "x")])), "ends before it begins"),
        (transcripts.mrt, "<Meeting", "is not XML"),
        (
            transcripts.mrt,
            '<M><Segment Participant="a" StartTime="x" EndTime="1">y</Segment></M>',
            "'x' is not a number",
        ),
        (transcripts.chime, "{", "is not JSON"),
        (transcripts.chime, '[{"start_time": "0:00:01"}]', "segment 1 has no end_time"),
        (
            transcripts.chime,
            '[{"start_time": {"U01": "0"}, "end_time": {}, "speaker": "a", "words": "b"}]',
            "CHiME-6 is its synchronised form",
        ),
        (transcripts.meeting_info, "a\tb\n", "line 1: 2 fields between tabs"),
    ],
)
def test_transcripts_that_are_none_are_refused(tmp_path, read, content, words):
    text(tmp_path / "file", content)
    with pytest.raises(BadValue, match=words):
        read(tmp_path / "file")


def test_a_text_grid_in_utf_16(tmp_path):
    content = grid(tier("wei", [(0, 1, '你好 ""x""')]))
    (tmp_path / "a.TextGrid").write_bytes(content.encode("utf-16"))
    assert transcripts.text_grid(tmp_path / "a.TextGrid") == [Said(0, 1, "wei", '你好 "x"')]


def mini_librispeech(root):
    for part, speakers in (("train-clean-5", (1, 2)), ("dev-clean-2", (3, 4))):
        for speaker in speakers:
            top = root / f"LibriSpeech/{part}/{speaker}/10"
            text(top / f"{speaker}-10.trans.txt", f"{speaker}-10-0000 ONE TWO\n{speaker}-10-0001 THREE\n")
            sound(top / f"{speaker}-10-0000.flac")
            sound(top / f"{speaker}-10-0001.flac")
    text(root / "LibriSpeech/SPEAKERS.TXT", "; ID | SEX\n1 | F | train-clean-5\n2 | M | train-clean-5\n")


def tedlium(root):
    for part in ("train", "dev", "test"):
        lines = f"{part}_2010 1 {part}_2010 0.5 2.0 <o,f0,male> one two<unk>\n"
        lines += f"{part}_2010 1 inter_segment_gap 2.0 3.0 <o,,unknown> {single.IGNORED}\n"
        text(root / f"legacy/{part}/stm/{part}_2010.stm", lines)
        sound(root / f"legacy/{part}/sph/{part}_2010.wav")


def voxceleb(root):
    for top, speakers in (("wav", range(10001, 10021)), ("wav", (10271,)), ("vox2_test_aac", (17,))):
        for speaker in speakers:
            sound(root / f"{top}/id{speaker:05d}/video/00001.wav", seconds=0.1)


SPEAKERS = {
    "mini_librispeech": (mini_librispeech, {"train": (4, 2), "dev": (2, 1), "test": (2, 1)}),
    "tedlium": (tedlium, {"train": (1, 1), "dev": (1, 1), "test": (1, 1)}),
    "voxceleb": (voxceleb, {"train": (19, 19), "dev": (1, 1), "test": (2, 2)}),
}


@pytest.mark.parametrize("name", SPEAKERS)
def test_a_corpus_of_speakers_becomes_a_table_that_data_reads(tmp_path, name):
    build, parts = SPEAKERS[name]
    build(tmp_path)
    place = table.place(name, tmp_path)
    found = written.write_speakers(place, tmp_path / "metadata.csv")
    assert {part: (one["utterances"], one["speakers"]) for part, one in found.items()} == parts
    rows = folder_source.load(root=str(tmp_path))
    assert len(rows) == sum(count for count, _ in parts.values())
    assert {row.split for row in rows} == set(parts) and all(row.speaker for row in rows)
    if name == "tedlium":
        samples, rate = rows[0].audio()
        assert len(samples) == 1.5 * rate and rows[0].text == "one two" and rows[0].speaker == "train"
    with pytest.raises(AlreadyThere, match="metadata.csv is there already"):
        written.write_speakers(place, tmp_path / "metadata.csv")
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(BadValue, match="must stand above the sound"):
        written.write_speakers(place, tmp_path / "elsewhere" / "table.csv")


def test_speakers_of_two_parts_are_refused(tmp_path):
    mini_librispeech(tmp_path)
    (tmp_path / "LibriSpeech/dev-clean-2/3").rename(tmp_path / "LibriSpeech/dev-clean-2/1")
    with pytest.raises(BadValue, match="speaker 1 stands in "):
        written.write_speakers(table.place("mini_librispeech", tmp_path), tmp_path / "metadata.csv")
    (tmp_path / "LibriSpeech/train-clean-5/2/10/2-10-0001.flac").unlink()
    with pytest.raises(NotThere, match=r"has no LibriSpeech/train-clean-5/2/10/2-10-0001\.flac"):
        written.write_speakers(table.place("mini_librispeech", tmp_path), tmp_path / "metadata.csv")


def test_the_command(tmp_path, capsys):
    voxconverse(tmp_path / "corpus")
    mini_librispeech(tmp_path / "mini")
    with contextlib.chdir(tmp_path):
        assert guarded(["recipe", "voxconverse", "corpus", "--output", "out"]) == 0
        shown = capsys.readouterr().out.splitlines()
        assert (
            shown[0].startswith("dev: 1 of 216 recordings, 0.00 h (0.00 scored), 2 to 2 speakers") and len(shown) == 3
        )
        assert guarded(["recipe", "mini_librispeech", "mini"]) == 0
        assert capsys.readouterr().out.splitlines()[0] == "train: 4 utterances of 2 speakers"
        with open("mini/metadata.csv", newline="") as file:
            assert {row["speaker"]: row["gender"] for row in csv.DictReader(file)} == {
                "1": "F",
                "2": "M",
                "3": "",
                "4": "",
            }
        for argv, words in (
            (["voxconverse"], "the folder is missing"),
            (["voxconverse", "corpus"], "--output is missing"),
            (["nothing", "corpus"], "unknown recipe 'nothing'"),
            (["voxconverse", "corpus", "--output", "out"], "out is there already"),
        ):
            assert guarded(["recipe", *argv]) == 1
            assert words in capsys.readouterr().err
        assert guarded(["recipe"]) == 2
        assert "mini_librispeech" in capsys.readouterr().out
