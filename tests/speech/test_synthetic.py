"""Synthesised speech: repeatable to the sample whatever the workers and the order, cached, whole files or none."""

import dataclasses
import os

import numpy as np
import pytest
import soundfile

from moejax.data.sources import builtin
from moejax.speech import atypical, espeak, phonology, render, speakers, synthetic
from moejax.speech.render import SpeechItem

TEXTS = ["the small dog sees my red house", "yesterday she bought three big apples", "who needs this key"]


def _items():
    """Two speakers of each cohort, three texts each."""
    people = [speakers.cast(cohort, index, 0) for cohort in speakers.COHORTS for index in range(2)]
    return [person.say(text, "test") for person in people for text in TEXTS]


def _read(path):
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == 16000 and samples.ndim == 1
    return samples


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    return folder, synthetic.synthesize(_items(), folder, workers=2)


def _word(text, voicebox, **fields):
    item = SpeechItem(text=text, snr_db=60.0, **fields)
    return render.render(item, next(iter(voicebox.speak([item]))))


def test_the_same_samples_whatever_workers_and_order(made, tmp_path):
    _, paths = made
    items = _items()
    backwards = synthetic.synthesize(items[::-1], tmp_path, workers=1)[::-1]
    for first, second in zip(paths, backwards, strict=True):
        assert first != second and first.name == second.name
        assert first.read_bytes() == second.read_bytes()


def test_one_item_alone_equals_it_in_company(made, tmp_path):
    _, paths = made
    for k in (4, 17, 40):
        alone = synthetic.synthesize([_items()[k]], tmp_path, workers=1)[0]
        assert alone.read_bytes() == paths[k].read_bytes()


def test_a_second_call_makes_nothing_and_a_broken_cache_is_completed(made):
    folder, paths = made
    calls = []
    assert synthetic.synthesize(_items(), folder, progress=lambda *counts: calls.append(counts)) == paths
    assert calls == []
    before, stamp = paths[3].read_bytes(), os.stat(paths[4]).st_mtime_ns
    paths[3].unlink()
    synthetic.synthesize(_items(), folder, progress=lambda *counts: calls.append(counts))
    assert calls == [(1, 1)]
    assert paths[3].read_bytes() == before
    assert os.stat(paths[4]).st_mtime_ns == stamp


def test_no_temporary_files_stay(made):
    folder, paths = made
    assert {path for path in folder.rglob("*") if path.is_file()} == set(paths)


def test_an_interrupted_write_leaves_no_file(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(render.os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        synthetic.synthesize(_items()[:1], tmp_path, workers=1)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_every_field_is_in_the_digest():
    base = SpeechItem(text="the dog sleeps")
    changed = {"text": "the dog sings", "voice": "en-029", "variant": "f1", "processes": ("gliding",)}
    for field in dataclasses.fields(SpeechItem):
        value = getattr(base, field.name)
        new = changed.get(field.name)
        if new is None:
            new = tuple(part + 1 for part in value) if isinstance(value, tuple) else value + 1
        assert render.digest(dataclasses.replace(base, **{field.name: new})) != render.digest(base), field.name


def test_wrong_voices_are_named(tmp_path):
    with pytest.raises(ValueError, match="no voice variant 'zzz'"):  # espeak-ng itself accepts it in silence
        synthetic.synthesize([SpeechItem(text="hello", variant="zzz")], tmp_path)
    with pytest.raises(ValueError, match="no voice 'xx-yy'"):
        synthetic.synthesize([SpeechItem(text="hello", voice="xx-yy")], tmp_path)
    many = [SpeechItem(text=f"hello {k}", variant="zzz") for k in range(40)]
    with pytest.raises(ValueError, match="no voice variant 'zzz'"):  # also from a worker process
        synthetic.synthesize(many, tmp_path, workers=2)
    with pytest.raises(ValueError, match="unknown speech process 'mumbling'.*stopping"):
        synthetic.synthesize([SpeechItem(text="hello", processes=("mumbling",))], tmp_path)


def test_missing_espeak_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install moejax\[quickstart\]"):
        synthetic.synthesize([SpeechItem(text="hello")], tmp_path)


def test_audio_is_sound_and_short(made):
    for item, path in zip(_items(), made[1], strict=True):
        samples = _read(path)
        assert 0.7 < len(samples) / 16000 < 6.0, item
        assert 0.005 < np.sqrt(np.square(samples).mean()) < 0.3
        assert np.abs(samples).max() < 1.0


def test_letters_and_words_are_told_apart():
    assert render.spelled("A") == "[['eI]]"
    assert render.spelled("A P T") == "[['eI]] p t"
    assert render.spelled("A DOG SEES A CAT") == "a dog sees a cat"
    with render.Voicebox() as voicebox:
        tee, seven = voicebox.phonemes([render.spelled("T"), render.spelled("SEVEN")])
        digit = voicebox.phonemes(["7"])[0]
        assert [phonology.stress(name)[1] for name in tee[0]] == ["t", "i:"]
        assert digit == seven


def test_every_process_changes_words_and_keeps_them_audible():
    with render.Voicebox() as voicebox:
        words = [
            voicebox.phonemes([word])[0] for word in ("tomorrow", "flowers", "garden", "this", "vest", "bed", "shop")
        ]
    words = [word for text in words for word in text]
    for process in (*phonology.PROCESSES, *phonology.ACCENTS):
        changed = phonology.apply(words, (process,))
        assert changed != words, process
        for word in changed:
            assert any(phonology.is_vowel(name) for name in word), (process, word)


def test_processes_do_what_they_are_called():
    smile, house = ["s", "m", "'aI", "l"], ["h", "'aU", "s"]
    assert phonology.final_deletion(house) == ["h", "'aU"]
    assert phonology.cluster_reduction(smile) == ["m", "'aI", "l"]
    assert phonology.weak_deletion(["t", "@", "m", "'A:", "r", "oU"]) == ["m", "'A:", "r", "oU"]
    assert phonology.apply([house, ["k", "'a", "t"]], ("stopping", "fronting")) == [["h", "'aU", "t"], ["t", "'a", "t"]]
    assert phonology.accent(["D", "I", "z"], "german") == ["z", "I", "s"]


def _modulation(samples, low, high):
    """Share of the loudness contour's variance between two modulation frequencies (Hz), in a held vowel."""
    loud = np.sqrt(np.square(samples[: len(samples) // 160 * 160].reshape(-1, 160)).mean(1))
    spectrum = np.abs(np.fft.rfft((loud - loud.mean()) * np.hanning(len(loud)))) ** 2
    hertz = np.fft.rfftfreq(len(loud), 0.01)
    return spectrum[(hertz > low) & (hertz < high)].sum() / spectrum.sum()


def test_tremor_swings_at_its_frequency():
    time = np.arange(32000) / 16000
    vowel = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 20)).astype(np.float32)
    shaken = atypical.tremble(vowel, 5.5, 0.8, np.random.default_rng(0))
    assert _modulation(shaken, 4, 7) > 0.8


def test_breath_replaces_harmonics_by_noise():
    time = np.arange(32000) / 16000
    vowel = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 40)).astype(np.float32)

    def periodicity(samples):  # correlation with itself one period (1 / 120 s) later
        return np.corrcoef(samples[1000:-1000], np.roll(samples, 133)[1000:-1000])[0, 1]

    breathed = [periodicity(atypical.breathe(vowel, amount, np.random.default_rng(0))) for amount in (0.0, 0.8, 1.0)]
    assert breathed[0] > 0.95
    assert breathed[0] > breathed[1] > breathed[2]
    assert abs(breathed[2]) < 0.1


def test_transforms_without_an_effect_return_the_signal():
    noise = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    assert np.allclose(atypical._istft(atypical._stft(noise), len(noise)), noise, atol=1e-5)
    assert np.allclose(atypical.breathe(noise, 0.0, np.random.default_rng(1)), noise, atol=1e-5)
    assert np.allclose(atypical.tremble(noise, 5.0, 0.0, np.random.default_rng(1)), noise, atol=1e-4)


def test_slow_speech_is_slower_and_a_short_tract_is_not_faster():
    with render.Voicebox() as voicebox:
        text = "my mother finds the old book"
        usual = len(_word(text, voicebox))
        slow = len(_word(text, voicebox, rate_wpm=110, gap_ms=100))
        short = len(_word(text, voicebox, tract=1.1))
    assert slow > 1.4 * usual
    assert abs(short / usual - 1) < 0.15


def test_speakers_are_fixed_by_cohort_index_and_seed():
    assert speakers.cast("tremor", 1, 0) == speakers.cast("tremor", 1, 0)
    assert speakers.cast("tremor", 1, 0) != speakers.cast("tremor", 1, 1)
    with pytest.raises(ValueError, match="unknown cohort 'hoarse'.*breathy"):
        speakers.cast("hoarse", 0, 0)
    variants = [speakers.cast("typical", index, 0).manner["variant"] for index in range(12)]
    assert len(set(variants)) == 12


def test_readings_read_each_text_in_many_voices(tmp_path):
    read = synthetic.readings(["T", "seven nine"], 12, 0, tmp_path)
    assert [text for text, _ in read] == ["T", "seven nine"] * 6
    assert len({path for _, path in read}) == 12
    assert read == synthetic.readings(["T", "seven nine"], 12, 0, tmp_path)
    items = [speakers.reader("seven nine", "typical", str(k)) for k in range(60)]
    assert len({item.spoken_voice for item in items}) > 30
    with pytest.raises(ValueError, match="at least one"):
        synthetic.readings([], 3, 0, tmp_path)


def test_builtin_corpus(tmp_path):
    options = {"cache_dir": tmp_path, "speakers_per_cohort": 2, "utterances_per_speaker": 3, "typical_speakers": 3}
    corpus = builtin.load(**options, typical_utterances=4, prompts=10)
    assert len(corpus) == len({row.id for row in corpus}) == 6 * 2 * 3 + 3 * 4
    assert {row.cohort for row in corpus} == set(speakers.COHORTS)
    assert len({row.prompt for row in corpus}) <= 10
    for row in corpus:
        assert os.path.isfile(row.audio) and row.prompt == row.text and row.translation_source == "grammar"
        assert all((row.translation, row.etiology, row.severity, row.accent, row.gender))
    tremor = builtin.load(**options, typical_utterances=4, prompts=10, cohorts=["tremor"])
    assert tremor == [row for row in corpus if row.cohort == "tremor"]


def test_default_cache_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert synthetic.cache_folder() == tmp_path / "moejax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert synthetic.cache_folder().parts[-2:] == (".cache", "moejax")


def test_the_speech_process_imports_neither_numpy_nor_jax():
    import subprocess
    import sys

    code = "import sys, moejax.speech.espeak; print(sorted({'jax', 'numpy', 'pyarrow', 'flax'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    assert espeak.RATE == 22050
