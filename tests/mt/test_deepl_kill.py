"""A translation that is killed at many moments and started again pays twice for nothing that was stored."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from deepl_server import KEY, Server

pytestmark = pytest.mark.faults

KILLS = 50
BATCH = 4  # texts of a request, so that there is something left to be killed at
TEXTS = [f"text number {i:03d}" if i % 10 else " " * (i // 10) for i in range(480)]
CODE = f"""
import json, sys
from moejax.mt import deepl_client
deepl_client.BATCH_TEXTS = {BATCH}
client = deepl_client.DeepL({KEY!r}, sys.argv[1], sys.argv[2])
print("ready", flush=True)
json.dump(client.translate(json.load(sys.stdin)), sys.stdout)
"""


def start(url, cache) -> subprocess.Popen:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", CODE, url, str(cache)], text=True, **pipes)
    process.stdin.write(json.dumps(TEXTS))
    process.stdin.close()
    return process


def stored(cache) -> set[str]:
    return {json.loads(path.read_text())["text"] for path in cache.rglob("*.json")}


class Killer:
    """Kills a process at its n-th request: when that comes, when it is carried out, or some time after the answer."""

    def __init__(self, process, number: int, moment: str, delay: float):
        self.process, self.number, self.moment, self.delay = process, number, moment, delay

    def __call__(self, moment: str, texts: list[str]):
        if moment == self.moment and (number := self.number - 1) >= 0:
            self.number = number
            if number == 0:
                time.sleep(self.delay)
                os.kill(self.process.pid, signal.SIGKILL)


def test_fifty_kills_lose_nothing_and_only_the_request_in_flight_is_asked_for_again(tmp_path):
    rng, server, cache = random.Random(11), Server(), tmp_path / "cache"
    wanted = {text for text in TEXTS if text.strip()}
    repeated, kills = 0, 0
    try:
        while kills < KILLS:
            before, known = server.carried.copy(), stored(cache)
            moment = rng.choice(["come", "carried out", "answered", "anywhere"])
            with start(server.url, cache) as process:
                if moment == "anywhere":  # also before the first request, while the process starts
                    process.stdout.readline()
                    time.sleep(rng.uniform(0, 0.05))
                    os.kill(process.pid, signal.SIGKILL)
                else:
                    delay = rng.uniform(0, 0.004) if moment == "answered" else 0.0
                    server.moments = Killer(process, rng.choice([1, 1, 2]), moment, delay)
                process.stdout.read()
                said = process.stderr.read()
            assert process.returncode == -signal.SIGKILL, f"kill {kills}, {moment}: {said}"
            server.rest()
            server.moments = None
            kills += 1
            carried = server.carried - before
            assert not set(carried) & known, "a text that was stored was sent again"
            assert set(carried.values()) <= {1}, "one run asked for a text twice"
            in_flight = set(carried) - stored(cache)
            assert len(in_flight) <= BATCH and known <= stored(cache)
            repeated += len(in_flight)
        assert stored(cache) < wanted, "the kills came after the work"
        with start(server.url, cache) as process:
            assert process.stdout.readline() == "ready\n"
            assert json.load(process.stdout) == [text.upper() if text.strip() else "" for text in TEXTS]
            assert not process.stderr.read()
        assert process.returncode == 0
    finally:
        server.close()
    assert set(server.carried) == wanted == stored(cache)
    assert server.carried.total() == len(wanted) + repeated  # the bill: every text once, and what was in flight
    assert 0 < repeated <= KILLS * BATCH, "no kill met a request in flight: the test does not test"
    print(f"{KILLS} kills: {server.carried.total()} texts carried out for {len(wanted)}, {repeated} of them again")
