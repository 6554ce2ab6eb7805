"""The published tiny.en, where it is installed, on a few sentences: formats of its weights, and other recognisers.

Sentences come from the synthesiser of the embedded corpus, so no recordings are needed. The long form, on real ones and
with larger models, is `tests/peers/test_real_speech.py`.
"""

import numpy as np
import pytest
import real_speech
import torch
import transformers
from real_speech import segments, told, words

import moejax
from moejax.audio.constants import SAMPLE_RATE
from moejax.convert import openai_whisper, whisper_folder
from moejax.decode.decoder import Window
from moejax.decode.options import DecodingOptions
from moejax.errors import NotInstalled
from moejax.speech import render

pytestmark = pytest.mark.filterwarnings("default")  # torch and its friends warn of each other
SENTENCES = (
    "the train from london was late again this morning",
    "she sells the house with the green door and the old garden behind it",
    "can you tell me where the nearest station is",
    "nobody knew what the answer to his question would be",
    "we shall meet on tuesday the third of march at half past seven",
)


@pytest.fixture(scope="module", autouse=True)
def _optimised():
    with real_speech.optimised():
        yield


@pytest.fixture(scope="module")
def folder():
    return real_speech.weights("tiny.en")


@pytest.fixture(scope="module")
def ours(folder):
    return moejax.load(folder)


@pytest.fixture(scope="module")
def clips(folder):
    items = [render.SpeechItem(text=text, rate_wpm=150 + 5 * place) for place, text in enumerate(SENTENCES)]
    try:
        with render.Voicebox() as voicebox:
            spoken = [render.render(item, next(iter(voicebox.speak([item])))) for item in items]
    except NotInstalled as missing:
        pytest.skip(str(missing))
    return [real_speech.Clip(item.text[:20], audio, item.text) for item, audio in zip(items, spoken, strict=True)]


def test_all_formats_of_the_weights_give_the_same_logits(folder, ours, clips, tmp_path):
    """Bitwise: a faster-whisper folder, a Hugging Face folder and an OpenAI checkpoint of one model."""
    config, params = whisper_folder.load(folder)
    assert whisper_folder.is_ctranslate2(folder)
    openai_whisper.save(tmp_path / "tiny.en.pt", config, params, dtype="float32")
    hf_folder = real_speech.hugging_face(folder, "tiny.en", tmp_path)
    mel_BMN = ours_mel(clips[0])
    tokens = np.array([[*ours.tokenizer.prefix("en"), *ours.tokenizer.encode(f" {SENTENCES[0]}")]])
    wanted = ours.logits(mel_BMN, tokens)
    assert np.isfinite(wanted).all() and wanted.std() > 1
    for path, given in ((hf_folder, None), (tmp_path / "tiny.en.pt", hf_folder)):
        other = moejax.load(path, vocabulary=given) if given else moejax.load(path)
        assert other.tokenizer.encode(SENTENCES[1]) == ours.tokenizer.encode(SENTENCES[1])
        np.testing.assert_array_equal(other.logits(mel_BMN, tokens), wanted)


def ours_mel(clip):
    from moejax.decode.features import Features

    mel_NM = Features(clip.audio, n_mels=80, hop=160, block=3000).slice(0, 3000)
    return np.pad(mel_NM, ((0, 3000 - len(mel_NM)), (0, 0)))[None].transpose(0, 2, 1)


@pytest.mark.parametrize("beams", [None, 5])
def test_text_and_times_as_openai_whisper(folder, ours, clips, tmp_path, beams):
    theirs = real_speech.openai(folder, "tiny.en", tmp_path)
    some = [*clips[:3], real_speech.joined(3 * clips, 40.0)]
    options = {"temperature": 0.0, "beam_size": beams, "word_timestamps": beams is None, "language": "en"}
    found = ours.transcribe([one.audio for one in some], guards="reference", **options)
    wanted = [theirs.transcribe(one.audio, fp16=False, **options) for one in some]
    assert not told(f"beams {beams}, openai-whisper", some, found, wanted, segments)
    if beams is None:
        assert [words(one) for one in found] == [words(one) for one in wanted]
        errors, said = real_speech.errors(some, [one.text for one in found])
        assert said > 50 and errors < 0.5 * said  # it is speech, to this network too


@pytest.mark.parametrize("beams", [1, 5])
def test_tokens_as_transformers(folder, ours, clips, tmp_path, beams):
    place = real_speech.hugging_face(folder, "tiny.en", tmp_path)
    model = transformers.WhisperForConditionalGeneration.from_pretrained(place).eval()
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(place)
    mel = extractor([c.audio for c in clips], sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
    with torch.no_grad():
        wanted = model.generate(mel, num_beams=beams, do_sample=False, max_new_tokens=60, max_length=None).tolist()
    options = DecodingOptions(
        language="en",
        without_timestamps=True,
        sample_len=60,
        **(dict(beam_size=beams, ranking="transformers") if beams > 1 else {}),
    )
    windows = [Window(np.ascontiguousarray(mel_MN.T)) for mel_MN in mel.numpy()]
    found = [list(one.tokens) for one in ours.decoder.decode(windows, options=options)]
    assert found == [[id for id in row if id < ours.tokenizer.eot] for row in wanted]
