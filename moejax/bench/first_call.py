"""Calls of one process: `python -m moejax.bench.first_call MODEL FILE LANGUAGE OUTPUT` writes {"load", "calls"}, in s.

What a program that keeps a recogniser waits for the first time, beside the times after it, with the compiled programs
of earlier processes at hand.
"""

import json
import sys
import time
from pathlib import Path

CALLS = 4


def main(model: str, file: str, language: str, output: str) -> None:
    from moejax.recognizer import load  # the time of imports is not a call's

    start = time.perf_counter()
    recognizer = load(model)
    loaded = time.perf_counter() - start
    calls = []
    for _ in range(CALLS):
        start = time.perf_counter()
        recognizer.transcribe(file, language=language, temperature=0.0)
        calls.append(time.perf_counter() - start)
    Path(output).write_text(json.dumps({"load": loaded, "calls": calls}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
