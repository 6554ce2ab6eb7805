"""The queue and its thread, over a model that does as it is told: company, failures, limits, the end."""

import threading
import time

import numpy as np
import pytest
from serving import Slow, until

from moejax.errors import BadValue
from moejax.serve import fields, models, service
from moejax.serve.declined import Declined
from moejax.serve.service import Limits, Service

BAD = np.full(7, 9, np.float32)


def wave(samples):
    return np.zeros(samples, np.float32)


@pytest.fixture
def slow():
    return Slow()


@pytest.fixture
def make(slow):
    """A service over `slow` with limits."""
    made = []

    def build(**limits):
        made.append(Service(slow, Limits(**limits)))
        return made[-1]

    yield build
    slow.go.set()
    for one in made:
        one.finish(stalled=0)


def told(job):
    return job.answer.result(30).text


def test_recordings_that_come_together_are_read_together(make, slow):
    place = make(batch_size=4, batch_wait=30.0)
    wanted = place.want("slow")
    jobs = [place.submit(wave(n), wanted) for n in range(1, 5)]
    assert [told(job) for job in jobs] == ["1", "2", "3", "4"]
    assert slow.together == [4]  # at once: a full batch waits for nobody


def test_company_is_waited_for_no_longer_than_was_said(make, slow):
    place = make(batch_size=4, batch_wait=0.2)
    began = time.monotonic()
    assert told(place.submit(wave(3), place.want("slow"))) == "3"
    assert 0.2 <= time.monotonic() - began < 10


def test_who_wants_something_else_is_read_apart_and_who_wants_the_same_joins(make, slow):
    slow.go.clear()
    place = make(batch_size=4, batch_wait=0.0)
    plain, german = place.want("slow"), place.want("slow", language="de")
    first = place.submit(wave(1), plain)
    until(lambda: slow.together == [1])
    jobs = [place.submit(wave(n), german if n % 2 else plain) for n in range(2, 6)]
    slow.go.set()
    assert [told(job) for job in [first, *jobs]] == ["1", "2", "3 de", "4", "5 de"]
    assert slow.together == [1, 2, 2]  # the even ones joined the batch of the first


def test_nobody_is_passed_over_for_ever(make, slow, monkeypatch):
    monkeypatch.setattr(service, "PATIENCE", 0.0)
    slow.go.clear()
    place = make(batch_size=2, batch_wait=0.0)
    first = place.submit(wave(1), place.want("slow"))
    until(lambda: slow.together == [1])
    other = place.submit(wave(2), place.want("slow", language="de"))
    later = place.submit(wave(3), place.want("slow"))
    slow.go.set()
    order = []
    for name, job in (("other", other), ("later", later)):
        job.answer.add_done_callback(lambda _, name=name: order.append(name))
    assert [told(first), told(other), told(later)] == ["1", "2 de", "3"] and order == ["other", "later"]


def test_one_that_cannot_be_read_costs_nobody_anything(make, slow, caplog):
    place = make(batch_size=5, batch_wait=1.0)
    wanted = place.want("slow")
    jobs = [place.submit(one, wanted) for one in (wave(1), wave(2), BAD, wave(3), wave(4))]
    assert [told(job) for job in jobs[:2] + jobs[3:]] == ["1", "2", "3", "4"]
    with pytest.raises(RuntimeError, match="cannot be read"):
        jobs[2].answer.result(30)
    assert told(place.submit(wave(6), place.want("slow", language="de"))) == "6 de"  # and it goes on
    assert "read alone" in caplog.text


def test_who_has_gone_is_not_read(make, slow):
    slow.go.clear()
    place = make(batch_size=1, batch_wait=0.0)
    wanted = place.want("slow")
    first = place.submit(wave(1), wanted)
    until(lambda: slow.together)
    gone, last = place.submit(wave(2), wanted), place.submit(wave(3), wanted)
    assert gone.answer.cancel() and not first.answer.cancel()
    slow.go.set()
    assert (told(first), told(last)) == ("1", "3") and slow.together == [1, 1]
    until(lambda: place.metrics.value("moejax_reading") == 0)
    assert place.metrics.value("moejax_queue_length") == 0


def test_samples_of_what_was_answered_are_let_go(make):
    place = make(batch_wait=0.0)
    job = place.submit(wave(1000), place.want("slow"))
    assert told(job) == "1000" and len(job.wave_S) == 0


def test_limits(make, slow):
    slow.go.clear()
    place = make(batch_size=1, batch_wait=0.0, seconds=1.0, waiting=1.5)
    wanted = place.want("slow")
    with pytest.raises(Declined, match="longer than 1 s") as found:
        place.submit(wave(16001), wanted)
    assert (found.value.status, found.value.code) == (413, "too_long")
    place.submit(wave(16000), wanted)
    until(lambda: slow.together)
    place.submit(wave(16000), wanted)
    with pytest.raises(Declined, match="1 s of audio wait already") as found:
        place.submit(wave(16000), wanted)
    assert (found.value.status, found.value.code) == (503, "busy")


def test_at_the_end_everybody_is_answered_who_was_in(make, slow):
    slow.go.clear()
    place = make(batch_size=1, batch_wait=0.0)
    wanted = place.want("slow")
    jobs = [place.submit(wave(n), wanted) for n in range(1, 4)]
    until(lambda: slow.together)
    inside = place.visit()
    inside.__enter__()  # its upload is still under way
    ending = threading.Thread(target=place.finish)
    ending.start()
    until(lambda: not place.open)
    with pytest.raises(Declined) as found, place.visit():
        pass
    assert (found.value.status, found.value.code) == (503, "stopping")
    jobs.append(place.submit(wave(4), wanted))
    inside.__exit__(None, None, None)
    slow.go.set()
    assert [told(job) for job in jobs] == ["1", "2", "3", "4"]
    ending.join(30)
    assert not ending.is_alive()
    with pytest.raises(Declined):
        place.submit(wave(5), wanted)


def test_an_upload_that_does_not_go_on_does_not_hold_the_end(make):
    place = make()
    with place.visit():
        place.finish(stalled=0.1)
        with pytest.raises(Declined):  # nobody would read it
            place.submit(wave(1), place.want("slow"))


def test_models_are_called_by_names_that_tell_no_place(tmp_path):
    (tmp_path / "mine").mkdir()
    found = models.named(["tiny.en", "openai/whisper-base", str(tmp_path / "mine"), f"W={tmp_path}"])
    assert list(found) == ["tiny.en", "openai/whisper-base", "mine", "W"] and found["W"] == str(tmp_path)
    for wrong in (["a", "a"], ["x=a", "x=b"], ["whisper-1=a"], ["x="], [""]):
        with pytest.raises(BadValue, match="--model"):
            models.named(wrong)


@pytest.mark.parametrize(
    ("items", "param", "words"),
    [
        ([], "model", "missing"),
        ([("model", "")], "model", "missing"),
        ([("model", "m"), ("model", "n")], "model", "2 times"),
        ([("model", "m"), ("temprature", "0")], "temprature", "did you mean temperature"),
        ([("model", "m"), ("temperature", "warm")], "temperature", "no number"),
        ([("model", "m"), ("temperature", "nan")], "temperature", "not finite"),
        ([("model", "m"), ("temperature", "1.5")], "temperature", "between 0 and 1"),
        ([("model", "m"), ("response_format", "xml")], "response_format", "known: json, text, srt"),
        ([("model", "m"), ("timestamp_granularities[]", "word")], "timestamp_granularities", "verbose_json"),
        ([("model", "m"), ("stream", "yes")], "stream", "known: true, false"),
        ([("model", "m"), ("stream", "true"), ("response_format", "srt")], "response_format", "not srt"),
        ([("model", "m"), ("route", "1,x")], "route", "no number"),
        ([("model", "m"), ("prompt", "x" * 20001)], "prompt", "at most 20000"),
        ([("model", "m\0")], "model", "no text"),
        ([("model", "m"), ("include[]", "logprobs")], "include", "unknown field"),
    ],
)
def test_a_wrong_field_is_named(items, param, words):
    with pytest.raises(Declined, match=words) as found:
        fields.asked(items, translate=False)
    assert found.value.status == 400 and found.value.body()["error"]["param"] == param


def test_fields_that_say_nothing_change_nothing():
    found = fields.asked([("model", "m"), ("temperature", "0"), ("language", ""), ("prompt", "")], translate=False)
    assert found.options == {} and found.chosen == {"model": "m"}
    found = fields.asked([("model", "m"), ("route", "[0.5, -1]"), ("chunking_strategy", "auto")], translate=False)
    assert found.chosen["route"] == (0.5, -1.0) and found.options == {}
