"""Phrases in front of a window, token by token against openai-whisper's `decode` with the same window and `prefix`.

    MOEJAX_TEST_WEIGHTS=WEIGHTS MOEJAX_TEST_DATA=DATA pytest tests/peers/test_enrolled.py -s

`real_speech` says what the folders hold: forty utterances of eight speakers of speechocean762, each behind three others
of the same speaker.
"""

import numpy as np
import pytest
import real_speech
import torch
import whisper
from whisper.audio import N_FRAMES, N_SAMPLES

import moejax
from moejax.decode.enrolled import fitting, joined
from moejax.text.sentence import sentence

pytestmark = pytest.mark.filterwarnings("default")
SPEAKERS, EACH, PHRASES = 8, 5, 3


@pytest.fixture(scope="module", autouse=True)
def _optimised():
    torch.set_num_threads(1)
    with real_speech.optimised():
        yield


@pytest.fixture(scope="module")
def speakers():
    """Per speaker the utterances to enroll by, and those to read."""
    names = sorted({row["speaker"] for row in real_speech.table("speechocean762")[1]})
    chosen = [real_speech.rows("speechocean762", speaker=name) for name in names[:: len(names) // SPEAKERS][:SPEAKERS]]
    return [(own[:PHRASES], own[PHRASES : PHRASES + EACH]) for own in chosen]


@pytest.mark.parametrize("name", ["tiny.en", "base"])
@pytest.mark.parametrize("beam", [None, 5])
def test_tokens_are_those_of_the_reference_with_a_prefix(name, beam, speakers, tmp_path):
    folder = real_speech.weights(name)
    ours, theirs = moejax.load(folder), real_speech.openai(folder, name, tmp_path)
    equal, count = 0, 0
    for own, read in speakers:
        places = fitting([one.audio for one in own], PHRASES)  # some speak so slowly that it is two
        context = joined([own[i].audio for i in places], [sentence(own[i].text) for i in places])
        prefix = context.tokens(ours.tokenizer, timed=False)
        got = {}
        waves = (one.audio for one in read)
        options = {"language": "en", "temperature": 0.0, "without_timestamps": True, "beam_size": beam}
        for place, transcript in ours.stream(waves, contexts=[context] * len(read), guards="none", **options):
            got[place] = [token for segment in transcript.segments for token in segment.tokens]
        for place, one in enumerate(read):
            audio_S = np.concatenate([context.audio_S, one.audio])  # windows are made as its `transcribe` makes them
            mel = whisper.log_mel_spectrogram(audio_S, theirs.dims.n_mels, padding=N_SAMPLES)[:, :-N_FRAMES]
            mel = whisper.pad_or_trim(mel, N_FRAMES)
            asked = whisper.DecodingOptions(
                language="en", without_timestamps=True, prefix=prefix, beam_size=beam, fp16=False
            )
            found = whisper.decode(theirs, mel, asked)
            want = [token for token in found.tokens if token < ours.tokenizer.eot]
            same = [token for token in got[place] if token < ours.tokenizer.eot] == want
            equal, count = equal + same, count + 1
            if not same:
                print(f"{name} beam {beam}: {found.text!r} here {ours.tokenizer.decode(got[place])!r}")
    print(f"{name}, beam {beam}: {equal} of {count} equal")
    assert count == SPEAKERS * EACH and equal == count
