"""A peer without an engine, for tests of the harness: `python artificial_peer.py` speaks the worker's protocol."""

import os
import time

import numpy as np

from moejax.bench.worker import Job, Timed, serve


def sleep(options):
    print("a library that talks on standard output", flush=True)
    return Job(lambda: time.sleep(options["ms"] / 1000))


def counted(options):
    runs = []

    def run():
        runs.append(1)
        return np.full((2, 3), len(runs), np.float32)

    return Job(run, lambda array: array.T)


def clocked(options):
    return Job(lambda: Timed({"answer": 42}, 7.5), single=True)


def broken(options):
    raise RuntimeError("no such\nengine")


def fatal(options):
    print("out of memory, says the engine", flush=True)
    os._exit(3)


def stuck(options):
    time.sleep(600)


JOBS = {job.__name__: job for job in (sleep, counted, clocked, broken, fatal, stuck)}

if __name__ == "__main__":
    serve(JOBS, lambda: {"device": "cpu", "versions": {}})
