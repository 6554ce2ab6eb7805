"""The official client of OpenAI's API against a real server: what it gets is what `Recognizer.transcribe` says."""

import json
import math

import numpy as np
import openai
import pytest
from serving import PLAIN, running, wav
from tiny_model import RATE, sound

from moejax.enrolment import profiles
from moejax.text import writers


def file(wave_S, format="WAV") -> tuple[str, bytes]:
    return f"a.{format.lower()}", wav(wave_S, format=format)


@pytest.fixture(scope="module")
def client(shared):
    with openai.OpenAI(base_url=f"{shared.url}/v1", api_key="none", max_retries=0, timeout=300) as found:
        yield found


@pytest.fixture(scope="module")
def timed(models):
    return models.get(models.which("timed", system=None, route=None, task="transcribe"))


WAVE = sound(3.0, 1)


@pytest.fixture(scope="module")
def expected(timed):
    found = timed.transcribe(WAVE, word_timestamps=True, **PLAIN)
    assert found.text.strip() and found.segments and found.segments[0].words  # or these tests would say nothing
    return found


def test_json_text_and_subtitles_are_those_of_the_recogniser(client, timed):
    ask = client.audio.transcriptions.create
    plain = timed.transcribe(WAVE, **PLAIN)
    assert ask(model="timed", file=file(WAVE)).text == plain.text.strip() != ""
    assert ask(model="whisper-1", file=file(WAVE), response_format="text") == plain.text.strip() + "\n"
    for form in ("srt", "vtt"):
        assert ask(model="timed", file=file(WAVE), response_format=form) == writers.render(plain, form)


def test_verbose_json_has_segments_and_words(client, expected):
    found = client.audio.transcriptions.create(
        model="timed", file=file(WAVE), response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert (found.text, found.duration) == (expected.text.strip(), 3.0)
    assert found.language in ("english", "german")
    ours = expected.segments
    assert [(s.start, s.end, s.text, s.tokens) for s in found.segments] == [
        (s.start, s.end, s.text, s.tokens) for s in ours
    ]
    words = [word for segment in ours for word in segment.words]
    assert [(w.word, w.start, w.end) for w in found.words] == [(w.word.strip(), w.start, w.end) for w in words]
    assert found.usage.seconds == 3
    alone = client.audio.transcriptions.create(
        model="timed", file=file(WAVE), response_format="verbose_json", timestamp_granularities=["word"]
    )
    assert alone.words == found.words and alone.segments is None
    assert (
        client.audio.transcriptions.create(model="timed", file=file(WAVE), response_format="verbose_json").words is None
    )


def test_without_words_verbose_json_is_the_plain_reading(client, timed):
    found = client.audio.transcriptions.create(model="timed", file=file(WAVE), response_format="verbose_json")
    plain = timed.transcribe(WAVE, **PLAIN)
    assert found.words is None and [part.text for part in found.segments] == [part.text for part in plain.segments]


def test_text_is_streamed_window_by_window(client, timed):
    wave = sound(70.0, 3)
    full = timed.transcribe(wave, **PLAIN).text.strip()
    events = list(client.audio.transcriptions.create(model="timed", file=file(wave), stream=True))
    deltas = [event.delta for event in events[:-1]]
    assert [event.type for event in events] == ["transcript.text.delta"] * len(deltas) + ["transcript.text.done"]
    assert events[-1].text == full == "".join(deltas) and len(deltas) >= 2  # half a letter waits for the next window
    events = list(client.audio.transcriptions.create(model="micro", file=file(WAVE), stream=True))
    assert events[-1].text == "".join(event.delta for event in events[:-1]) != ""


def test_language_prompt_temperature_and_keywords_reach_the_recogniser(client, timed):
    options = {"language": "German", "initial_prompt": "wo ist der", "temperature": (0.6,), "hotwords": ("Hund",)}
    expected = timed.transcribe(WAVE, **{**PLAIN, **options})
    asked = {"language": "German", "prompt": "wo ist der", "temperature": 0.6, "extra_body": {"keywords": ["Hund"]}}
    found = client.audio.transcriptions.create(model="timed", file=file(WAVE), response_format="verbose_json", **asked)
    assert (found.text, found.language) == (expected.text.strip(), "german")
    assert found.segments[0].temperature == 0.6
    assert expected.text != timed.transcribe(WAVE, **PLAIN).text
    long = client.audio.transcriptions.create(model="timed", file=file(WAVE), prompt="wo ist der Hund " * 200)
    assert long.text  # the end of it, as OpenAI's API says: no error


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # by the client; the route stays
def test_translations_have_their_own_task(client, timed):
    expected = timed.transcribe(WAVE, task="translate", **PLAIN).text.strip()
    assert client.audio.translations.create(model="timed", file=file(WAVE)).text == expected
    found = client.audio.translations.create(model="timed", file=file(WAVE), response_format="verbose_json")
    assert found.text == expected and found.task == "translate"
    assert client.audio.translations.create(model="timed", file=file(WAVE), response_format="text").strip() == expected


def test_models_are_listed_by_name_and_no_place_is_told(client, models):
    assert [model.id for model in client.models.list()] == ["timed", "micro"]
    assert client.models.retrieve("micro").id == "micro" and client.models.retrieve("whisper-1").id == "whisper-1"
    with pytest.raises(openai.NotFoundError, match="no model 'large'; there are: timed, micro"):
        client.audio.transcriptions.create(model="large", file=file(WAVE))
    with pytest.raises(openai.NotFoundError) as found:
        client.models.retrieve("large")
    assert found.value.code == "model_not_found" and found.value.param == "model"
    assert models.wanted["timed"] not in json.dumps([model.model_dump() for model in client.models.list()])


def test_a_speakers_phrases_stand_in_front(client, timed):
    phrases, texts = [sound(2.0, 11), sound(2.0, 12)], ["ba do", "wo ist der Hund"]
    profiles.save("anna", phrases, texts, replace=True)
    kept = profiles.load("anna")
    expected = timed.enroll(list(kept.waves), list(kept.texts)).transcribe(WAVE, **PLAIN).text.strip()
    assert expected != timed.transcribe(WAVE, **PLAIN).text.strip()
    ask = client.audio.transcriptions.create
    assert ask(model="timed", file=file(WAVE), extra_body={"speaker": "anna"}).text == expected
    with pytest.raises(openai.BadRequestError, match="no speaker 'bob' is enrolled here") as found:
        ask(model="timed", file=file(WAVE), extra_body={"speaker": "bob"})
    assert found.value.param == "speaker" and "anna" not in str(found.value)  # who else is, is nobody's business
    for name in ("../anna", "/etc/passwd", "anna/../anna"):
        with pytest.raises(openai.BadRequestError, match="letters, digits"):
            ask(model="timed", file=file(WAVE), extra_body={"speaker": name})
    with pytest.raises(openai.BadRequestError, match="30 s|phrases"):
        ask(model="micro", file=file(WAVE), extra_body={"speaker": "anna"})


def test_a_route_needs_a_mixture_and_a_system_one_that_there_is(client):
    ask = client.audio.transcriptions.create
    with pytest.raises(openai.BadRequestError, match="has no gate") as found:
        ask(model="timed", file=file(WAVE), extra_body={"route": "0.5,1"})
    assert found.value.param == "route"
    with pytest.raises(openai.BadRequestError, match="no system 'moe'") as found:
        ask(model="timed", file=file(WAVE), extra_body={"system": "moe"})
    assert found.value.param == "system"


@pytest.mark.parametrize("format", ["FLAC", "OGG", "MP3"])
def test_other_formats_are_read(client, format):
    assert client.audio.transcriptions.create(model="micro", file=file(WAVE, format)).text


def test_silence_is_empty_text_and_its_length_is_told(client):
    silent = file(np.zeros(2 * RATE, np.float32))
    found = client.audio.transcriptions.create(model="timed", file=silent, response_format="verbose_json")
    assert (found.text, found.duration) == ("", 2.0)
    assert found.to_dict()["flaws"][0].startswith("silent: ") and math.isclose(found.usage.seconds, 2)


def test_a_key_is_asked_for_and_compared_whole(models):
    with running(models, keys=["one", "two-ß"]) as place:
        for key, fits in (("one", True), ("two", False), ("on", False), ("", False), ("one one", False)):
            client = openai.OpenAI(base_url=f"{place.url}/v1", api_key=key or "x", max_retries=0)
            if fits:
                assert client.models.list().data
                assert client.audio.transcriptions.create(model="micro", file=file(WAVE)).text
                continue
            with pytest.raises(openai.AuthenticationError, match="wants a key") as found:
                client.audio.transcriptions.create(model="micro", file=file(WAVE))
            assert found.value.code == "invalid_api_key"
            with pytest.raises(openai.AuthenticationError):
                client.models.list()
