"""`moejax personalize` on a small model: what is learnt from some recordings reads others, and the profile is used."""

import json

import numpy as np
import pytest
import soundfile
import tiny_job
import tiny_model

import moejax
from moejax import __main__ as cli
from moejax.convert import hf_whisper, low_rank
from moejax.nn.whisper import WhisperConfig
from moejax.personal import lora
from moejax.personal.material import Material, Recording
from moejax.tasks import asr

ONCE = ("--temperature_increment_on_fallback", "None", "--guards", "none", "--language", "en")
WRITTEN = "The cat sat there."  # as models write it
SAID, OTHER, RATE = "the cat sat there", "ba do ki mu", 16000


def tone(seed: int) -> np.ndarray:
    """A second of somebody, a little different every time."""
    rng = np.random.default_rng(seed)
    return tiny_model.sound(0.9 + 0.1 * rng.random(), seed=seed)


@pytest.fixture(scope="module", autouse=True)
def quick():
    with tiny_job.quick():
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Random weights, wide enough for a LoRA on its decoder to learn a sentence."""
    folder, tokenizer = tmp_path_factory.mktemp("model") / "small", tiny_model.tokenizer(True)
    sizes = {"max_source_positions": 1500, "max_target_positions": 128}
    config = WhisperConfig(96, 1, 2, 2, 2, 128, 256, tokenizer.vocab_size, **sizes)
    _, params = asr.init(asr.build(config, seed=1))
    hf_whisper.save(folder, config, {group: params[group] for group in ("backbone", "buffer")}, tokenizer)
    return folder


@pytest.fixture
def voice(tmp_path, monkeypatch):
    monkeypatch.setenv("MOEJAX_SPEAKERS", str(tmp_path / "speakers"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "voice"
    folder.mkdir()
    for number in range(12):
        soundfile.write(folder / f"{number:02d}.wav", tone(number), RATE)
        (folder / f"{number:02d}.txt").write_text(SAID)
    soundfile.write(tmp_path / "new.wav", tone(100), RATE)
    return folder


def call(capsys, *arguments):
    code = cli.guarded([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_adapters_learn_from_their_own_recordings_alone(model):
    """Two adapters in one program: the first meets one sentence, the second another."""
    recognizer = moejax.load(model)
    material = Material(recognizer, [Recording(tone(i), (SAID, OTHER)[i % 2]) for i in range(8)], "en")
    options = {"rank": 4, "rate": 3e-3, "seed": 1}
    pair = lora.train(recognizer, material, [range(0, 8, 2), range(1, 8, 2)], steps=100, **options)
    asked = {"language": "en", "temperature": 0.0, "without_timestamps": True, "guards": "none"}
    for adapter, words in zip(pair, (SAID, OTHER), strict=True):
        found = lora.with_adapter(recognizer, adapter).transcribe([tone(50), tone(51)], **asked)
        assert [one.text.strip() for one in found] == [words] * 2
    assert recognizer.transcribe(tone(50), **asked).text.strip() not in (SAID, OTHER)  # itself it is as it was
    # With times it says from when to when, though it met those in half of its turns only
    timed = lora.with_adapter(recognizer, pair[0]).transcribe(tone(50), **{**asked, "without_timestamps": False})
    assert timed.segments[0].text.strip() == SAID and 0.8 < timed.segments[-1].end < 1.1


def test_an_adapter_learns_the_same_beside_another(model):
    recognizer = moejax.load(model)
    material = Material(recognizer, [Recording(tone(i), SAID) for i in range(8)], "en")
    options = {"rank": 4, "rate": 1e-3, "seed": 1, "steps": 3}
    (alone,), (beside, _) = (
        lora.train(recognizer, material, members, **options) for members in ([range(8)], [range(8), range(4)])
    )
    norms = [sum(np.linalg.norm(one.delta()) ** 2 for one in found.values()) for found in (alone, beside)]
    assert alone.keys() == beside.keys() and min(norms) > 0
    assert low_rank.merged(recognizer.params, alone)["backbone"].keys() == recognizer.params["backbone"].keys()


def test_a_voice_is_learnt_kept_and_used(model, voice, capsys, tmp_path):
    asked = ("personalize", voice, "--name", "anna", "--model", model, "--language", "en", "--normalizer", "lower")
    code, out, err = call(capsys, *asked, "--steps", "80", "--learning_rate", "0.003")
    assert (code, err) == (0, "") and "12 recordings of anna, 48 words" in out
    facts = json.loads((tmp_path / "speakers/anna/profile.json").read_text())["personal"]
    assert facts["rank"] > 0 and facts["expected"] < facts["published"] and facts["low"] <= facts["expected"]
    assert f"* LoRA of rank {facts['rank']}" in out and "from " in out and "expected of 8 new recordings" in out

    def read(*more):
        code, out, err = call(capsys, "transcribe", "new.wav", "--model", model, *more, *ONCE)
        assert code == 0
        return out.strip(), err

    assert read("--speaker", "anna") == (WRITTEN, "") and read()[0] != WRITTEN
    # PEFT's folder is the same adapter
    folder = tmp_path / "speakers/anna/adapter"
    assert (folder / "adapter_config.json").is_file()
    if not facts["context"]:
        assert read("--adapter", folder)[0] == WRITTEN
    assert call(capsys, "speakers", "export", "anna", "copy")[0] == 0
    assert (tmp_path / "copy/adapter/adapter_model.safetensors").is_file()
    # The model with the adapter merged is a model like any other
    assert call(capsys, "export", "--speaker", "anna", "--to", "hf", "--output", "merged")[0] == 0
    assert (tmp_path / "merged/README.md").is_file() and (tmp_path / "merged/export.json").is_file()
    if not facts["context"]:
        code, out, _ = call(capsys, "transcribe", "new.wav", "--model", "merged", *ONCE)
        assert (code, out.strip()) == (0, WRITTEN)
    for more, said in (
        (("--to", "peft"), "in PEFT's layout already"),
        (("--to", "hf", "--route", "average"), "--route does not go with --speaker"),
        (("--to", "mp3"), "unknown format 'mp3'"),
    ):
        code, _, err = call(capsys, "export", "--speaker", "anna", "--output", "other-merged", *more)
        assert code != 0 and said in err and not (tmp_path / "other-merged").exists()
    # Another model is given the phrases, and says so
    other = tiny_model.write(tmp_path / "other", timed=True, seed=3, context=128)
    code, _, err = call(capsys, "transcribe", "new.wav", "--model", other, "--speaker", "anna", *ONCE)
    assert code == 0 and f"anna was learnt by small; {other} is given the phrases alone" in err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--name", "anna"), "--model is missing"),
        (("--name", "an na", "--model", "M"), "speaker 'an na': letters, digits"),
        (("--name", "anna", "--model", "M", "--steps", "0"), "--steps is 0"),
        (("--name", "anna", "--model", "M", "--learning_rate", "nan"), "--learning_rate is nan"),
        (("--name", "anna", "--model", "M", "--language", "klingon"), "klingon"),
    ],
)
def test_what_cannot_be_learnt_is_refused_in_one_line(model, voice, capsys, tmp_path, arguments, reason):
    chosen = [model if argument == "M" else argument for argument in arguments]
    code, _, err = call(capsys, "personalize", voice, *chosen)
    assert code == 1 and reason in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "speakers/anna").exists()


def test_too_few_recordings_and_names_that_are_taken_are_refused(model, voice, capsys):
    some = [voice / f"{number:02d}.wav" for number in range(5)]
    code, _, err = call(capsys, "personalize", *some, "--name", "anna", "--model", model)
    assert code == 1 and "5 recordings; from 8 on" in err
    assert call(capsys, "enroll", *some, "--name", "anna")[0] == 0
    code, _, err = call(capsys, "personalize", voice, "--name", "anna", "--model", model)
    assert code == 1 and "anna' is enrolled already" in err
