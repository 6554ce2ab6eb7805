"""`moejax.load` of every kind of model, and `Recognizer.transcribe` on paths, arrays, lists and long audio.

What a trained model says is tested in job/test_job.py and, against other implementations, in tests/peers; here the
weights are random, and what counts is that every way to the same audio says the same.
"""

import base64
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tiny_job
import tiny_model
from huggingface_hub import constants
from tiny_model import RATE, record, sound

import moejax
from moejax.convert import hf_whisper, openai_whisper, peft_lora
from moejax.convert.low_rank import LowRank
from moejax.decode.guards import Guards
from moejax.decode.longform import LongformOptions, Reading, transcribe_sequential
from moejax.decode.options import LADDER, DecodingOptions
from moejax.text import writers

ONCE = {"temperature": 0.0, "guards": "none", "language": "en"}  # random weights fail every threshold


@pytest.fixture(scope="module", autouse=True)
def quick():
    with tiny_job.quick():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("timed") / "model", timed=True)


@pytest.fixture(scope="module")
def recognizer(folder):
    return moejax.load(folder)


@pytest.fixture(scope="module")
def micro(tmp_path_factory):
    return moejax.load(tiny_model.write(tmp_path_factory.mktemp("micro") / "model", timed=False))


def same(left, right):
    return writers.render(left, "json") == writers.render(right, "json")


def test_a_published_model_is_read_sequentially_with_the_references_defaults(recognizer):
    asked = recognizer.check()
    assert recognizer.timestamps and asked.algorithm == "sequential"
    assert asked.decoding == DecodingOptions(language=None, temperature=LADDER)
    assert asked.longform == LongformOptions(guards=Guards())
    decoding, options = DecodingOptions(language="en"), LongformOptions(guards=Guards.reference(no_speech=None))
    wave = sound(33.0)
    ((_, expected),) = transcribe_sequential(
        [wave],
        Reading(
            model=recognizer.decoder,
            tokenizer=recognizer.tokenizer,
            config=recognizer.config,
            decoding=decoding,
            options=options,
        ),
    )
    found = recognizer.transcribe(wave, **ONCE)
    assert same(found, expected) and found.segments and {segment.seek for segment in found.segments} != {0}


def test_a_micro_model_is_read_in_pieces_as_it_was_evaluated(micro):
    asked = micro.check()
    assert not micro.timestamps and asked.algorithm == "pieces" and asked.decoding.language == "en"
    assert asked.decoding.without_timestamps and asked.decoding.temperatures == (0.0,)
    assert asked.decoding.banned(micro.tokenizer) == () and asked.decoding.sample_len == 32
    found = micro.transcribe(sound(6.0), initial_prompt="ba do")
    ends = [segment.end for segment in found.segments]
    assert len(ends) > 2 and [segment.start for segment in found.segments] == [0.0, *ends[:-1]] and ends[-1] == 6.0
    assert found.text == " ".join(segment.text for segment in found.segments if segment.text)
    timed = micro.transcribe(sound(6.0), initial_prompt="ba do", word_timestamps=True)
    assert timed.text == found.text
    for piece, segment in zip(found.segments, timed.segments, strict=True):
        assert "".join(word.word for word in segment.words).strip() == segment.text
        assert all(piece.start <= word.start <= word.end <= piece.end + 0.04 for word in segment.words)
    with pytest.raises(ValueError, match="sequential.*timestamps, which this model does not write; use chunked"):
        micro.check(algorithm="sequential")


def test_thresholds_reach_the_guards_and_the_ladder(recognizer):
    asked = recognizer.check(no_speech_threshold=0.3, logprob_threshold=-2.0, hotwords=["ba", "do"])
    assert (asked.longform.guards.no_speech, asked.longform.guards.no_speech_logprob) == (0.3, -2.0)
    assert (asked.decoding.no_speech_threshold, asked.decoding.logprob_threshold) == (0.3, -2.0)
    assert asked.decoding.hotwords == ("ba", "do")
    assert recognizer.check(guards="reference").longform.guards == Guards.reference()
    assert recognizer.check(algorithm="chunked", batch_size=3).batch_size == 3


def test_neighbours_and_their_order_change_nothing(recognizer):
    waves = [sound(seconds, seed) for seed, seconds in enumerate((3.0, 31.0, 0.5))]
    together = recognizer.transcribe(waves, **ONCE)
    backwards = recognizer.transcribe(waves[::-1], **ONCE)[::-1]
    for a, b, wave in zip(together, backwards, waves, strict=True):
        assert a.text == b.text == recognizer.transcribe(wave, **ONCE, batch_size=2).text


def test_paths_bytes_and_arrays_of_any_kind_are_the_same_sound(recognizer, tmp_path):
    path = record(tmp_path / "a.wav", 3.0, subtype="FLOAT")
    pcm = (sound(3.0) * 2**15).astype(np.int16)
    by_path, by_array = recognizer.transcribe(path, **ONCE), recognizer.transcribe(sound(3.0), **ONCE)
    assert same(by_path, by_array) and same(by_path, recognizer.transcribe(str(path), **ONCE))
    assert np.array_equal(recognizer.read(path.read_bytes()), recognizer.read(path))
    assert np.abs(recognizer.read(pcm) - recognizer.read(path)).max() < 1e-4
    stereo = sound(3.0, rate=44100, channels=2)
    assert recognizer.read(stereo, 44100).shape == (3 * RATE,)
    assert len(recognizer.transcribe([path, sound(3.0)], **ONCE)) == 2


@pytest.mark.parametrize("algorithm", ["sequential", "chunked"])
def test_no_length_is_too_short_or_too_long(recognizer, algorithm):
    """0.05 s, silence, nothing, and more than a window: no crash, times within the audio and in order."""
    options = {**ONCE, "algorithm": algorithm}
    blip, silent, empty, long = recognizer.transcribe(
        [sound(0.05), np.zeros(RATE, np.float32), np.zeros(0, np.float32), sound(40.0)], **options
    )
    assert (silent.text, silent.segments, empty.segments) == ("", [], [])
    assert all(0 <= segment.start <= segment.end <= 30.1 for segment in blip.segments)
    starts = [segment.start for segment in long.segments]
    assert starts[-1] > 10.0
    assert starts == sorted(starts)
    if algorithm == "chunked":
        in_order(long.segments, 40.0)
    assert [segment.id for segment in long.segments] == list(range(len(starts)))


def in_order(segments, seconds):
    """Every segment has text and a length, and follows on the one before it, within the recording."""
    edges = [time for segment in segments for time in (segment.start, segment.end)]
    assert edges == sorted(edges) and edges[0] >= 0.0 and edges[-1] <= seconds
    assert all(segment.start < segment.end and segment.text.strip() for segment in segments)
    for segment in segments:
        times = [time for word in segment.words or () for time in (word.start, word.end)]
        assert all(segment.start <= time <= segment.end for time in times)


@pytest.mark.parametrize("words", [False, True])
def test_chunked_segments_follow_on_one_another(recognizer, words):
    waves = [sound(37.0, seed=seed) for seed in range(4)]
    for found in recognizer.transcribe(waves, **ONCE, algorithm="chunked", word_timestamps=words):
        assert found.segments
        in_order(found.segments, 37.0)


def test_a_language_has_its_english_name_too(recognizer):
    by_code, by_name = (recognizer.transcribe(sound(2.0), **{**ONCE, "language": how}) for how in ("de", "German"))
    assert by_name.language == "de" and same(by_code, by_name)


def test_loading_tells_the_allocator_to_keep_pages_first(folder, monkeypatch):
    order = []
    monkeypatch.setattr(moejax.runtime.allocator, "keep_pages", lambda: order.append("keep"))
    monkeypatch.setattr(hf_whisper, "load", lambda place: order.append("load") or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        moejax.load(folder)
    assert order == ["keep", "load"]


def test_progress_is_told_in_seconds(recognizer):
    told = []
    recognizer.transcribe([sound(31.0), sound(2.0)], progress=lambda *what: told.append(what), **ONCE)
    assert {place for place, _, _ in told} == {0, 1}
    for place, total in ((0, 31.0), (1, 2.0)):
        done = [seconds for at, seconds, whole in told if at == place and whole == total]
        assert done == sorted(done) and done[-1] == total


def test_a_stream_reads_only_when_there_is_room(recognizer):
    read = []

    def waves():
        for number in range(6):
            read.append(number)
            yield sound(20.0, number)

    for done, _ in enumerate(recognizer.stream(waves(), batch_size=2, **ONCE), 1):
        assert len(read) <= done + 3  # three hold the audio of two whole windows
    assert done == 6


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"beams": 5}, TypeError, "no option 'beams'; did you mean beam_size.*known: .*algorithm"),
        ({"language": "xx"}, ValueError, "unknown language 'xx'; this vocabulary has en .english., de .german."),
        ({"task": "sing"}, ValueError, "task is 'sing'"),
        ({"algorithm": "fast"}, ValueError, "algorithm is 'fast'; known: sequential, chunked"),
        ({"guards": "some"}, ValueError, "guards is 'some'; known: all, reference, none"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"patience": 2.0}, ValueError, "patience requires beam_size"),
        ({"hallucination_silence_threshold": 2.0}, ValueError, "needs word_timestamps"),
    ],
    ids=str,
)
def test_a_wrong_option_is_refused_before_any_work(recognizer, options, error, words):
    with pytest.raises(error, match=words) as raised:
        recognizer.transcribe("never looked for.wav", **options)
    assert "\n" not in str(raised.value)


def test_a_missing_or_broken_file_is_named(recognizer, tmp_path):
    (tmp_path / "x.wav").write_bytes(b"RIFF no sound at all")
    with pytest.raises(ValueError, match="x.wav"):
        recognizer.transcribe(tmp_path / "x.wav")
    with pytest.raises(FileNotFoundError, match="no audio file .*none.wav"):
        recognizer.transcribe([tmp_path / "none.wav"])
    with pytest.raises(ValueError, match="nan: 1600 of 16000 samples are not finite, between 0.400 and 0.500 s"):
        recognizer.transcribe(np.where(np.arange(RATE) // 1600 == 4, np.nan, 0.1).astype(np.float32))


def test_what_can_be_heard_of_a_damaged_recording_is_heard_and_the_rest_is_said(recognizer, tmp_path, caplog):
    spoiled = sound(3.0)
    spoiled[[16000, 16001]] = np.nan, np.inf
    path = record(tmp_path / "a.wav", 3.0, subtype="FLOAT")
    cut = tmp_path / "cut.wav"
    cut.write_bytes(path.read_bytes()[:-96000])
    said = []
    heard = recognizer.read(spoiled, warn=said.append)
    assert np.array_equal(heard, np.where(np.isfinite(spoiled), spoiled, 0)) and len(said) == 1
    assert said[0] == "2 of 48000 samples are not finite, at 1.000 s; they became zero"
    assert len(recognizer.read(cut)) == 1.5 * RATE
    assert caplog.messages == ["cut.wav: truncated: the header promises 3.00 s, 1.50 s are there"]
    for silence in (np.zeros(RATE, np.float32), sound(1.0) / 32768):
        caplog.clear()
        assert not len(recognizer.read(silence)) and "the recording: silent: loudest part at -" in caplog.text


def test_an_array_of_any_type_and_order_is_the_same_sound(recognizer):
    wave = sound(1.0)
    whole = (wave * 2**15).astype(np.int16)
    for other in (wave.astype(">f4"), wave.astype(np.float64), wave.astype(">f8"), wave.tolist()):
        assert np.array_equal(recognizer.read(other), wave)
    for other in (whole.astype(">i2"), np.stack([whole, whole], axis=1)):
        assert np.array_equal(recognizer.read(other), recognizer.read(whole))
    for rate in (np.int64(8000), np.uint16(8000), 8000.0, np.float32(8000)):
        assert np.array_equal(recognizer.read(wave, rate), recognizer.read(wave, 8000))
    assert same(recognizer.transcribe(wave.tolist(), **ONCE), recognizer.transcribe(wave, **ONCE))
    with pytest.raises(ValueError, match="int64 has no known full scale"):
        recognizer.read([1, 2, 3])
    with pytest.raises(ValueError, match="sampling rate nan"):
        recognizer.read(wave, float("nan"))


def test_an_id_is_found_in_the_local_cache_and_offline_nowhere_else(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    snapshot = tmp_path / "hub" / "models--some--whisper" / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(folder, target_is_directory=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    assert moejax.load("some/whisper").config == hf_whisper.load_config(folder)
    with pytest.raises(FileNotFoundError, match=f"some/other is neither.*cache {tmp_path}/hub.*hf download some/other"):
        moejax.load("some/other")


def test_what_is_no_model_is_said_with_what_would_be(folder, tmp_path):
    for path in ("nowhere", tmp_path, tmp_path / "a" / "b" / "c"):
        with pytest.raises(FileNotFoundError, match="is neither a moejax workdir .* nor a Hugging Face folder .*.pt"):
            moejax.load(path)
    (tmp_path / "model.pt").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="model.pt"):
        moejax.load(tmp_path / "model.pt")
    with pytest.raises(KeyError, match="no system 'moe'; it has base"):
        moejax.load(folder, system="moe")


def test_an_openai_checkpoint_is_the_same_model(tmp_path):
    """With a vocabulary file of the published size beside it; heads that follow the audio go by the file's name."""
    ranks = [bytes([i]) for i in range(256)] + [bytes([i // 256, i % 256]) for i in range(50001)]
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(ranks)]
    (tmp_path / "multilingual.tiktoken").write_text("".join(lines))
    made, params = tiny_model.make(vocab_size=51865)
    openai_whisper.save(tmp_path / "tiny.pt", made, params, dtype="float32")
    recognizer = moejax.load(tmp_path / "tiny.pt")
    assert recognizer.timestamps and recognizer.config == made and recognizer.tokenizer.timestamp_begin == 50364
    assert list(recognizer.heads[0]) == [2, 2] and "yue" not in recognizer.tokenizer.languages
    mel = np.zeros((1, 80, 3000), np.float32)
    hf_whisper.save(tmp_path / "hf", made, params, recognizer.tokenizer)
    assert np.array_equal(recognizer.encode(mel), moejax.load(tmp_path / "hf").encode(mel))


def adapter(folder, made, layer, scale, seed=0):
    """A PEFT folder with one LoRA of rank 2."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    A_DR, B_RO = (rng.normal(0, 0.5, shape).astype(np.float32) for shape in ((32, 2), (2, 32)))
    peft_lora.save(folder, made, {layer: LowRank(A_DR, B_RO, scale)})
    return folder


def test_adapters_of_peft_are_added_to_a_published_model(recognizer, folder, tmp_path):
    config = recognizer.config
    mel_BMN = np.random.default_rng(3).normal(size=(1, 80, 3000)).astype(np.float32)
    tokens_BL = np.array([recognizer.tokenizer.prefix("en")])

    def logits(**options):
        return moejax.load(folder, **options).logits(mel_BMN, tokens_BL)

    q, v = (adapter(tmp_path / n, config, f"decoder/layers/0/cross_attn/{n}", 2.0, seed) for seed, n in enumerate("qv"))
    plain, one = recognizer.logits(mel_BMN, tokens_BL), logits(adapters=[q])
    assert np.abs(one - plain).max() > 0.01
    np.testing.assert_allclose(logits(adapters=str(q), route=(1.0,)), one, atol=1e-6)
    np.testing.assert_allclose(logits(adapters=[q, v], route=(1, 0)), one, atol=1e-6)
    np.testing.assert_allclose(logits(adapters=[q, v], route=(0, 0)), plain, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"adapters": ["q", "q"]}, "2 adapters need a route"),
        ({"adapters": ["q", "q"], "route": (1.0,)}, "a route is 2 finite weights"),
        ({"route": (1.0,)}, "a route is the weights of adapters, and there are none"),
        ({"adapters": ["nowhere"]}, "nowhere: no adapter_config.json, so no PEFT adapter"),
        ({"adapters": ["wide"]}, "is no linear layer of this Whisper"),
    ],
)
def test_adapters_that_do_not_fit_are_refused(recognizer, folder, tmp_path, monkeypatch, options, says):
    monkeypatch.chdir(tmp_path)
    adapter(Path("q"), recognizer.config, "decoder/layers/0/cross_attn/q", 2.0)
    larger = dataclasses.replace(recognizer.config, decoder_layers=3)
    adapter(Path("wide"), larger, "decoder/layers/2/cross_attn/q", 2.0)
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        moejax.load(folder, **options)
