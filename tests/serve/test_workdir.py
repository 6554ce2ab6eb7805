"""A workdir behind the server: its systems, the route of its mixture, and which system translates."""

import httpx
import pytest
import soundfile
import tiny_job
from serving import running, wav

import moejax
from moejax.serve.models import Models

pytestmark = pytest.mark.job
LOGITS = (3.0, -1.0, 0.5)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    with tiny_job.quick():
        yield tiny_job.shared(tmp_path_factory) / "W"


def test_systems_and_routes_are_those_of_the_recogniser(workdir):
    path = next((workdir.parent / "corpus" / "wav").glob("dan-*.wav"))
    wave = soundfile.read(path, dtype="float32")[0]
    with running(Models({"mine": str(workdir)}), options={}) as place:

        def ask(**fields):
            files = {"model": (None, "mine"), "file": ("a.wav", wav(wave)), "response_format": (None, "verbose_json")}
            files |= {name: (None, value) for name, value in fields.items()}
            return httpx.post(f"{place.url}/v1/audio/transcriptions", files=files, timeout=600).json()

        mine, lora = moejax.load(workdir), moejax.load(workdir, system="lora")
        found, expected = ask(), mine.transcribe(wave)
        assert found["text"] == expected.text.strip() and found["route"] == pytest.approx(expected.route)
        assert ask(system="lora")["text"] == lora.transcribe(wave).text.strip()
        found, expected = ask(route="3,-1,0.5"), mine.on_route(LOGITS).transcribe(wave)
        assert found["text"] == expected.text.strip() and found["route"] == pytest.approx(expected.route)
        assert found["route"] != pytest.approx(ask()["route"])  # and the next is the gate's own again
        for fields, param, words in (
            ({"route": "1,2"}, "route", "route has 2 numbers; this mixture has 3 experts"),
            ({"route": "1,2,3", "system": "base"}, "route", "no gate"),
            ({"system": "none"}, "system", "none"),
        ):
            error = ask(**fields)["error"]
            assert error["param"] == param and words in error["message"] and str(workdir) not in error["message"]
