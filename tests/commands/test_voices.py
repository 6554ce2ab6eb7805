"""`moejax enroll`, `speakers`, `transcribe --enroll/--speaker` and `score` on a small model that hears 30 s."""

import csv
import json

import pytest
import tiny_job
import tiny_model

import moejax
from moejax import __main__ as cli
from moejax.assess import plan
from moejax.data.manifest import Utterance
from moejax.errors import BadValue

ONCE = ("--temperature_increment_on_fallback", "None", "--guards", "none", "--language", "en", "--format", "json")
SAID = {"1": "ba do ki mu", "2": "the cat sat there", "3": "eins zwei", "4": "DREI VIER"}


@pytest.fixture(scope="module", autouse=True)
def quick():
    with tiny_job.quick():
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("model") / "tiny", timed=True, context=128)


@pytest.fixture
def voice(tmp_path, monkeypatch):
    """A folder of four phrases, a text beside each; profiles go to a folder of the test."""
    monkeypatch.setenv("MOEJAX_SPEAKERS", str(tmp_path / "speakers"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "voice"
    folder.mkdir()
    for name, text in SAID.items():
        tiny_model.record(folder / f"{name}.wav", 1.5 + 0.1 * int(name), seed=int(name))
        (folder / f"{name}.txt").write_text(text)
    tiny_model.record(tmp_path / "new.wav", 2.2, seed=9)
    return folder


@pytest.fixture
def call(capsys):
    def run(*arguments):
        code = cli.guarded([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_a_speaker_is_enrolled_used_exported_and_removed(model, voice, call, tmp_path):
    code, out, _ = call("enroll", voice, "--name", "anna")
    assert code == 0 and out.count("used") == 4 and out.count("kept") == 0
    assert "1.6 s  1.wav: Ba do ki mu." in out and "anna is enrolled by 4 of 4 phrases" in out
    assert call("speakers")[1] == "anna\t4 phrases\t7.0 s\n"

    code, named, err = call("transcribe", "new.wav", "--model", model, "--speaker", "anna", *ONCE)
    assert (code, err) == (0, "")
    texts = [SAID[name] for name in "1234"]
    direct = moejax.load(model).enroll([str(voice / f"{name}.wav") for name in "1234"], texts)
    want = direct.transcribe("new.wav", temperature=0.0, guards="none", language="en")
    assert json.loads(named)["text"] == want.text
    assert json.loads(call("transcribe", "new.wav", "--model", model, "--enroll", voice, *ONCE)[1]) == json.loads(named)
    plain = json.loads(call("transcribe", "new.wav", "--model", model, *ONCE)[1])
    assert plain["segments"][0]["avg_logprob"] != json.loads(named)["segments"][0]["avg_logprob"]

    assert call("speakers", "export", "anna", "copy")[0] == 0
    rows = table(tmp_path / "copy/metadata.csv")
    assert [row["text"] for row in rows] == list(SAID.values())
    again = call("transcribe", "new.wav", "--model", model, "--enroll", "copy", *ONCE)[1]
    assert json.loads(again)["text"] == json.loads(named)["text"]
    assert call("speakers", "remove", "anna")[0] == 0 and "nobody is enrolled" in call("speakers")[2]


def test_a_phrase_that_leaves_no_room_is_kept_and_not_used(voice, call):
    tiny_model.record(voice / "5.wav", 19.0, seed=5)
    (voice / "5.txt").write_text("a long story")
    code, out, _ = call("enroll", voice, "--name", "anna")
    assert code == 0 and "kept   19.0 s  5.wav: A long story." in out
    assert out.count("used") == 4 and "anna is enrolled by 4 of 5 phrases" in out


def test_what_is_refused_names_itself(model, voice, call, tmp_path):
    assert call("enroll", voice, "--name", "anna")[0] == 0
    refusals = {
        ("enroll", voice, "--name", "anna"): "'anna' is enrolled already; --replace",
        ("enroll", voice): "--name is missing",
        ("enroll", voice, "--name", "../x"): "speaker '../x': letters, digits",
        ("enroll", "new.wav", "--name", "ben"): "new.wav has no text: give metadata.csv",
        ("speakers", "remove", "ben"): "no speaker 'ben' is enrolled; enrolled: anna",
        ("speakers", "sing"): "list, export NAME FOLDER, or remove NAME",
        ("transcribe", "new.wav", "--model", model, "--speaker", "ben"): "no speaker 'ben'",
        ("transcribe", "new.wav", "--model", model, "--speaker", "anna", "--enroll", voice): "give one",
        ("transcribe", "new.wav", "--model", model, "--enroll", "new.wav"): "give the texts of the recordings",
    }
    for arguments, words in refusals.items():
        code, out, err = call(*arguments)
        assert (code, out) == (1, "") and words in err and err.count("\n") == 1, err
    (voice / "2.txt").unlink()
    assert "2.wav has no text; give every phrase its own" in call("enroll", voice, "--name", "carl")[2]
    (tmp_path / "speakers/anna/1.flac").write_bytes(b"something else")
    assert "is not what was recorded" in call("transcribe", "new.wav", "--model", model, "--speaker", "anna")[2]
    assert call("enroll", voice / "1.wav", "--name", "anna", "--replace")[0] == 0
    assert call("speakers")[1].startswith("anna\t1 phrases")


def test_phrases_without_texts_are_read_by_a_model(model, voice, call, monkeypatch):
    for path in voice.glob("*.txt"):
        path.unlink()
    assert "or --listen MODEL" in call("enroll", voice, "--name", "dora")[2]
    code, _, err = call("enroll", voice, "--name", "dora", "--listen", model)  # random weights are sure of nothing
    assert code == 1 and "none of 4 readings is sure enough" in err and err.count("left out: ") == 4
    answers = iter(["", "the cat", "-", "ba do"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda shown: next(answers))
    code, out, _ = call("enroll", voice, "--name", "dora", "--listen", model)
    assert code == 0 and "2.wav: The cat." in out and "4.wav: Ba do." in out and "3.wav" not in out


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    rows = ["file,text,speaker,cohort"]
    for i, speaker in enumerate("abc"):
        for n in range(5):
            tiny_model.record(folder / f"{speaker}{n}.wav", 1.2 + 0.1 * n, seed=10 * i + n)
            rows.append(f"{speaker}{n}.wav,the cat sat there,{speaker},{'odd' if i % 2 else 'even'}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_scores_are_of_the_same_utterances_and_go_on_where_they_were(model, corpus, call, tmp_path, monkeypatch):
    asked = ("score", "--model", model, "--data", corpus, "--enroll", "0,2", "--controls", "--language", "en")
    code, out, err = call(*asked, "--csv", tmp_path / "s.csv", "--keep", tmp_path / "keep")
    assert (code, err) == (0, "")
    rows = table(tmp_path / "s.csv")
    whole = {row["enroll"]: row for row in rows if row["group"] == "all"}
    assert set(whole) == {"0", "2", "2-other", "2-texts"}
    assert {(row["utterances"], row["words"]) for row in whole.values()} == {("9", "36")}
    assert {row["name"] for row in rows if row["group"] == "cohort"} == {"odd", "even"}
    for row in rows:
        parts = sum(int(row[kind]) for kind in ("substitutions", "deletions", "insertions"))
        assert int(row["errors"]) == parts and float(row["wer"]) == pytest.approx(parts / int(row["words"]))
    assert "tiny, 2 enrolled - tiny, 2-other enrolled" in out and "WER % by speaker" in out

    monkeypatch.setattr("moejax.assess.reading.Listener._texts", None)  # nothing is heard a second time
    assert call(*asked, "--keep", tmp_path / "keep")[1] == out


def test_score_refuses_in_one_line(model, corpus, call):
    assert "--data is missing" in call("score", "--model", model)[2]
    assert "'x' is no number of phrases" in call("score", "--model", model, "--data", corpus, "--enroll", "0,x")[2]
    assert "has no speaker 'z'" in call("score", "--model", model, "--data", corpus, "--speakers", "a,z")[2]
    assert "leave none to score" in call("score", "--model", model, "--data", corpus, "--enroll", "5")[2]
    assert "unknown group 'shoe'" in call("score", "--model", model, "--data", corpus, "--by", "shoe")[2]


def utterances(speakers, each):
    return [Utterance(id=f"{s}{n}", audio=f"{s}{n}.wav", text="x", speaker=s) for s in speakers for n in range(each)]


def test_phrases_are_never_scored_and_a_new_speaker_changes_nothing():
    made = plan.make(utterances("abcd", 8), [0, 1, 3], controls=True, limit=2)
    apart = {one.id for own in made.phrases.values() for one in own}
    assert len(apart) == 12 and len(made.scored) == 8 and not apart & {one.id for one in made.scored}
    assert [condition.name for condition in made.conditions] == ["0", "1", "3", "3-other", "3-texts"]
    for speaker in "abcd":
        own = made.enrolled(speaker, made.conditions[2])
        assert {one.speaker for one in own} == {speaker} and made.enrolled(speaker, made.conditions[1]) == own[:1]
        assert {one.speaker for one in made.enrolled(speaker, made.conditions[3])}.isdisjoint({speaker})
    more = plan.make(utterances("abcde", 8), [0, 1, 3], controls=True, limit=2)
    assert [one for one in more.scored if one.speaker != "e"] == made.scored
    with pytest.raises(BadValue, match="name no speaker"):
        plan.make(utterances([""], 8), [3])
