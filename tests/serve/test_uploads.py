"""What comes over the net: broken, too large, without a key's worth of sense, and clients that go away."""

import concurrent.futures
import io
import os
import socket
import tempfile

import httpx
import numpy as np
import soundfile
from serving import LIMITS, Slow, numbers, running, until, wav
from tiny_model import sound


def heard(seconds=1.0, seed=0):
    return wav(sound(seconds, seed), "PCM_16")


GOOD = {"model": (None, "micro")}


def multipart(parts, boundary=b"xyz"):
    """A body of (head, content), as a client would write it that knows nothing."""
    lines = [b"--" + boundary + b"\r\n" + head + b"\r\n\r\n" + content + b"\r\n" for head, content in parts]
    return b"".join(lines) + b"--" + boundary + b"--\r\n"


FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"'
MODEL = (b'Content-Disposition: form-data; name="model"', b"micro")


def broken(number):
    """Upload `number` of many: (headers, body)."""
    rng = np.random.default_rng(number)
    kind, audio = number % 14, heard(0.3, number % 5)
    body, headers = None, {"Content-Type": "multipart/form-data; boundary=xyz"}
    match kind:
        case 0:  # cut anywhere, the header too
            audio = audio[: rng.integers(0, len(audio))]
        case 1:
            audio = b""
        case 2:
            audio = b"this is no recording\n" * int(rng.integers(1, 50))
        case 3:
            audio = rng.bytes(int(rng.integers(1, 5000)))
        case 4:  # flipped bytes in a good file
            damaged = bytearray(audio)
            for at in rng.integers(0, min(len(damaged), 200), 8):
                damaged[at] = rng.integers(0, 256)
            audio = bytes(damaged)
        case 5:  # no file
            body = multipart([MODEL])
        case 6:  # no model
            body = multipart([(FILE, audio)])
        case 7:  # an address or a path in place of a file
            where = [b"http://127.0.0.1:1/a.wav", b"/etc/passwd", b"file:///etc/passwd"][number % 3]
            body = multipart([MODEL, (b'Content-Disposition: form-data; name="file"', where)])
        case 8:  # a form that is none
            whole = multipart([MODEL, (FILE, audio)])
            body = whole[: rng.integers(0, len(whole))]
        case 9:  # another type
            headers = {"Content-Type": ["application/json", "text/plain", "", "multipart/form-data"][number % 4]}
            body = b'{"model": "micro"}'
        case 10:  # fields of any bytes
            names = [b"language", b"temperature", b"response_format", b"route", b"speaker", b"prompt", b"\xff\xfe"]
            head = b'Content-Disposition: form-data; name="' + names[number % 7] + b'"'
            body = multipart([MODEL, (FILE, audio), (head, rng.bytes(int(rng.integers(1, 60))))])
        case 11:  # damaged heads of formats that other libraries read
            heads = [b"OggS", b"fLaC", b"ID3\x03", b"\xff\xfb\x90", b"\0\0\0\x20ftypM4A ", b"\x1aE\xdf\xa3", b"#!AMR\n"]
            audio = heads[number % 7] + rng.bytes(3000)
        case 12:  # a playlist that names other files
            audio = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
        case 13:  # parts without a name, twice the file, a hundred fields
            body = multipart([(b"Content-Disposition: form-data", b"x"), MODEL, (FILE, audio), (FILE, audio)])
            body = body if number % 2 else multipart([MODEL] * 300 + [(FILE, audio)])
    return headers, multipart([MODEL, (FILE, audio)]) if body is None else body


def test_a_thousand_broken_uploads_are_refused_each_by_a_sentence(shared):
    seen, good = {}, []
    with httpx.Client(base_url=shared.url, timeout=300) as client:

        def send(number):
            if number % 100 == 50:  # somebody who is all right among them
                files = {**GOOD, "file": ("a.wav", heard(1.0, 1))}
                return number, client.post("/v1/audio/transcriptions", files=files)
            headers, body = broken(number)
            return number, client.post("/v1/audio/transcriptions", content=body, headers=headers)

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for number, answer in pool.map(send, range(1000)):
                if number % 100 == 50:
                    good.append(answer.json()["text"])
                    continue
                seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
                if answer.status_code != 200:
                    error = answer.json()["error"]
                    assert set(error) == {"message", "type", "param", "code"} and "\n" not in error["message"]
                    assert error["message"] and "/tmp" not in error["message"], error
        assert set(seen) <= {200, 400} and seen[400] > 600, seen
        assert len(good) == 10 and len(set(good)) == 1 and good[0]
        assert client.get("/health").json() == {"status": "ok"}


def test_other_addresses_and_methods_are_told_in_the_same_form(shared):
    with httpx.Client(base_url=shared.url) as client:
        for answer, status in ((client.get("/v1/audio"), 404), (client.get("/v1/audio/transcriptions"), 405)):
            assert answer.status_code == status and "/v1/audio/transcriptions" in answer.json()["error"]["message"]
        assert client.get("/docs").status_code == 404  # its page would load scripts from elsewhere


def test_what_is_too_large_or_too_long_is_a_413(shared):
    with httpx.Client(base_url=shared.url, timeout=300) as client:

        def post(content, **more):
            return client.post("/v1/audio/transcriptions", files={**GOOD, "file": ("a.wav", content)}, **more)

        large = post(b"\0" * (12 << 20))
        assert (large.status_code, large.json()["error"]["code"]) == (413, "too_large")
        body = multipart([MODEL, (FILE, b"\0" * (12 << 20))])
        pieces = (body[at : at + 65536] for at in range(0, len(body), 65536))  # of a length that nobody declared
        headers = {"Content-Type": "multipart/form-data; boundary=xyz"}
        large = client.post("/v1/audio/transcriptions", content=pieces, headers=headers)
        assert (large.status_code, large.json()["error"]["message"].count("8 MB")) == (413, 1)
        out = io.BytesIO()
        soundfile.write(out, np.zeros(8000 * 1000, np.int16), 8000, format="FLAC")  # 17 minutes in a few kilobytes
        assert len(out.getvalue()) < 1 << 20
        long = post(out.getvalue())
        assert (long.status_code, long.json()["error"]["code"]) == (413, "too_long")
        assert "120 s" in long.json()["error"]["message"]


def test_no_file_is_left_and_none_has_a_name(shared, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    opened = []
    real = os.open
    monkeypatch.setattr(
        os, "open", lambda path, flags, *rest, **more: (opened.append(str(path)), real(path, flags, *rest, **more))[1]
    )
    with httpx.Client(base_url=shared.url, timeout=300) as client:
        for content in (wav(sound(12.0, channels=2)), b"\1" * (2 << 20), b"\0" * (12 << 20)):  # good, broken, too large
            client.post("/v1/audio/transcriptions", files={**GOOD, "file": ("a.wav", content)})
            assert list(tmp_path.iterdir()) == []
    assert any(str(tmp_path) in path for path in opened)  # they did lie there


def test_browsers_may_call_it_from_pages_that_were_allowed_only(shared):
    ask = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in httpx.get(f"{shared.url}/health", headers=ask).headers
    with running(Slow(), origins=["https://page.example"]) as place:
        for origin, allowed in (("https://page.example", True), ("https://other.example", False)):
            found = httpx.options(f"{place.url}/v1/audio/transcriptions", headers={**ask, "Origin": origin})
            assert ("access-control-allow-origin" in found.headers) == allowed


HEAD = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=xyz\r\n"


def raw(url, content, model=b"slow"):
    """A socket on which a whole request was sent, and nothing read."""
    body = multipart([(MODEL[0], model), (FILE, content)])
    host, port = url.removeprefix("http://").split(":")
    made = socket.create_connection((host, int(port)))
    made.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    return made


def test_who_goes_away_costs_nobody_anything():
    slow = Slow()
    slow.go.clear()
    with running(slow, options={}) as place, concurrent.futures.ThreadPoolExecutor(4) as pool:
        first = pool.submit(_post, place.url, heard(0.5))
        until(lambda: slow.together)
        raw(place.url, heard(0.6)).close()
        cut = raw(place.url, heard(0.7))
        until(lambda: numbers(place)[("moejax_queue_length",)] >= 1)
        cut.close()
        half = socket.create_connection(("127.0.0.1", int(place.url.rsplit(":", 1)[1])))
        half.sendall(HEAD + b"Content-Length: 999\r\n\r\n--xyz\r\nContent-Disp")
        half.close()
        last = pool.submit(_post, place.url, heard(0.8))
        until(lambda: numbers(place).get(("moejax_errors_total", "disconnected"), 0) == 3)
        slow.go.set()
        assert first.result(30).json()["text"] == "8000" and last.result(30).json()["text"] == "12800"
        found = until(lambda: (n := numbers(place))[("moejax_reading",)] == 0 and n)
        assert found[("moejax_queue_length",)] == 0 and sum(slow.together) == 2  # the others were not read


def _post(url, content, **fields):
    files = {"model": (None, "slow"), "file": ("a.wav", content), **{k: (None, v) for k, v in fields.items()}}
    return httpx.post(f"{url}/v1/audio/transcriptions", files=files, timeout=300)


def test_metrics_count_what_happened():
    slow = Slow()
    with running(slow, LIMITS, options={}) as place:
        assert [_post(place.url, heard(seconds)).status_code for seconds in (1.0, 2.0, 0.5)] == [200] * 3
        assert _post(place.url, b"x").json()["error"]["code"] == "unreadable"
        assert _post(place.url, heard(), language="xx").json()["error"]["param"] == "language"
        found = numbers(place)
    ask = "transcriptions"
    assert found[("moejax_requests_total", "200", ask)] == 3 and found[("moejax_requests_total", "400", ask)] == 2
    assert found[("moejax_errors_total", "unreadable")] == found[("moejax_errors_total", "invalid_value")] == 1
    assert found[("moejax_audio_seconds_total", "slow")] == 3.5
    assert found[("moejax_request_seconds_count", ask)] == 5
    assert found[("moejax_request_seconds_bucket", "+Inf", ask)] == 5
    assert found[("moejax_batch_size_count",)] == found[("moejax_batch_size_bucket", "1")] == 3
    assert found[("moejax_queue_length",)] == found[("moejax_reading",)] == 0


def test_a_fault_of_ours_is_a_500_that_tells_nothing():
    class Broken(Slow):
        def stream(self, *_, **__):
            raise RuntimeError("/secret/place")

    with running(Broken(), options={}) as place:
        answer = _post(place.url, heard())
        assert answer.status_code == 500 and "secret" not in answer.text
        assert answer.json()["error"]["type"] == "server_error"
        events = _post(place.url, heard(), stream="true")
        assert events.status_code == 200 and '"code": "internal"' in events.text and "secret" not in events.text


def test_a_server_that_was_told_to_stop_answers_who_was_in_and_tells_the_others():
    slow = Slow()
    slow.go.clear()
    with running(slow, options={}) as place, concurrent.futures.ThreadPoolExecutor(8) as pool:
        inside = [pool.submit(_post, place.url, heard(seconds)) for seconds in (0.5, 0.6, 0.7)]
        until(lambda: place.service._reading)
        until(lambda: place.service._visitors == 3 and len(place.service._queue) + place.service._reading == 3)
        place.server.handle_exit(15, None)
        until(lambda: not place.service.open)
        late = _post(place.url, heard())
        assert late.status_code == 503 and late.json()["error"]["code"] == "stopping"
        assert httpx.get(f"{place.url}/health").status_code == 503
        slow.go.set()
        assert sorted(one.result(30).json()["text"] for one in inside) == ["11200", "8000", "9600"]
        place.thread.join(30)
        assert not place.thread.is_alive()
