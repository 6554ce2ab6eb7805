"""moejax's side: `python -m moejax.bench.ours`. Jobs run the product's own functions; options are those of `rows`."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from moejax.bench import decoding, floor, inputs, training, weights
from moejax.bench.worker import Job, Timed, serve
from moejax.convert import hf_whisper
from moejax.diarize.talks import RATE
from moejax.errors import Failed
from moejax.nn import functional
from moejax.nn.diarizers import Sizes
from moejax.nn.quantize import quantize
from moejax.ops.audio import log_mel
from moejax.runtime import allocator
from moejax.runtime import versions as package_versions
from moejax.tasks import asr, diarization
from moejax.types import Route

COPY_BYTES = 256 * 2**20


def opened(options, **experts):
    """`(graphdef, params, config)` of the folder, with awake experts (B drawn) when `experts` are asked for."""
    config, base = hf_whisper.load(options["folder"], dtype=options.get("dtype", "float32"))
    config = training.typed(config, options)
    mixture = training.mixture(**experts) if experts else None
    graphdef, params = asr.init(asr.build(config, mixture=mixture), quantize(base, options.get("weights", "")))
    if experts:
        params = {**params, "expert": training.awake(params["expert"])}
    return graphdef, jax.device_put(params), config


def mel(options) -> Job:
    """Waveforms to log-mel features."""
    audio_BS = jax.device_put(inputs.audio(options["batch"], options["seconds"]))
    run = jax.jit(lambda audio_BS: log_mel(audio_BS, n_mels=options["bins"]))
    return Job(lambda: run(audio_BS).block_until_ready())


def encode(options) -> Job:
    """Features to encoder states."""
    graphdef, params, config = opened(options)
    mel_BNM = jax.device_put(inputs.mel(options["batch"], options["seconds"], config.num_mel_bins))
    run = jax.jit(lambda params, mel_BNM: functional.merge(graphdef, params).encode(mel_BNM))
    return Job(lambda: run(params, mel_BNM).block_until_ready(), _float32)


def logits(options) -> Job:
    """Features and tokens to the logits of every next token."""
    graphdef, params, config = opened(options)
    mel_BNM = jax.device_put(inputs.mel(options["batch"], options["seconds"], config.num_mel_bins))
    tokens_BL, _ = inputs.tokens(options["batch"], options["tokens"], options["prefix"])

    @jax.jit
    def run(params, mel_BNM, tokens_BL):
        model = functional.merge(graphdef, params)
        return model.decode(tokens_BL, model.encode(mel_BNM))

    return Job(lambda: run(params, mel_BNM, tokens_BL).block_until_ready(), _float32)


def greedy(options) -> Job:
    """Features to a fixed number of tokens; with "experts" every utterance has its own route."""
    experts = {"num_experts": options["experts"], "top_k": options["top_k"]} if options.get("experts") else {}
    graphdef, params, config = opened(options, **experts)
    mel_BNM = jax.device_put(inputs.mel(options["batch"], options["seconds"], config.num_mel_bins))
    route = Route(*inputs.route(options["batch"], *experts.values())) if experts else None

    @jax.jit
    def run(params, mel_BNM, route):
        model = functional.merge(graphdef, params)
        return decoding.search(
            model,
            model.encode(mel_BNM),
            prefix=options["prefix"],
            tokens=options["tokens"],
            eot=options["eot"],
            suppress=options["suppress"],
            route=route,
        )

    return Job(lambda: run(params, mel_BNM, route).block_until_ready())


def diarizer(options) -> Job:
    """States of a talk to the probabilities of its speakers: EEND-EDA at its published size (Horiguchi et al. 2020) on
    a tiny Whisper's five layers, random weights.
    """
    sizes = Sizes(hears=(5, 384), width=256, layers=4, ffn=2048, attention=options["attention"])
    graphdef, params = diarization.init(sizes, 0)
    frames = round(RATE * options["talk"])
    heard = np.random.default_rng(3).standard_normal((1, frames, *sizes.hears), np.float32)
    batch = jax.device_put({"states_BTLD": heard.astype(np.float16), "frames_B": np.array([frames])})
    params, hear = jax.device_put(params), diarization.make_hear(graphdef)
    return Job(lambda: jax.block_until_ready(hear(params, batch))[0], _float32)


def start(options) -> Job:
    """Time to the first training step in a fresh process: trace, compile or read from the cache, run.

    "cache" is "cold" (an empty folder every time) or "warm" (one folder, filled when the job is prepared); "whole"
    takes the whole process, imports and weights included, instead.
    """
    kept = tempfile.TemporaryDirectory() if options["cache"] == "warm" else None  # lives as long as `run` below

    def run():
        with tempfile.TemporaryDirectory() as fresh:
            folder = fresh if kept is None else kept.name
            begun = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "moejax.bench.start", json.dumps({**options, "cache": folder})],
                capture_output=True,
                text=True,
            )
            whole = time.perf_counter() - begun
        if done.returncode:
            raise Failed((done.stderr.strip().splitlines() or ["the start printed nothing"])[-1])
        first = json.loads(done.stdout.strip().splitlines()[-1])["seconds"]
        return Timed(first, whole if options.get("whole") else first)

    if kept is not None:
        run()
    return Job(run, single=True)


def peak_sgemm(options) -> Job:
    """A float32 (or options' type) matrix product of jax, the measure of arithmetic."""
    size = floor.product_size(jax.default_backend())
    a, b = (jnp.ones((size, size), options.get("dtype", "float32")) for _ in range(2))
    run = jax.jit(jnp.matmul)
    return Job(lambda: run(a, b).block_until_ready())


def peak_blas(options) -> Job:
    """The same by numpy's BLAS: a processor's peak is the better of two libraries."""
    size = floor.product_size("cpu")
    a, b = (np.ones((size, size), np.float32) for _ in range(2))
    return Job(lambda: a @ b)


def peak_copy(options) -> Job:
    """A copy that fits no cache, the measure of memory: COPY_BYTES read and as many written."""
    if jax.default_backend() == "cpu":
        source = np.ones(COPY_BYTES // 4, np.float32)
        target = np.empty_like(source)
        return Job(lambda: np.copyto(target, source))
    source = jnp.ones(COPY_BYTES // 4, jnp.float32)
    run = jax.jit(lambda x: x + 1)
    return Job(lambda: run(source).block_until_ready())


def folder(options) -> Job:
    """The random weights; its value is what other jobs want to know."""
    return Job(lambda: weights.write(Path(options["folder"]), size=options["size"], seconds=options["seconds"]))


def _float32(array):
    return np.asarray(array, np.float32)


def hello() -> dict:
    names = ("moejax", "jax", "jaxlib", "flax")
    device = jax.devices()[0]
    return {
        "device": device.platform,
        "kind": device.device_kind,
        "cores": os.cpu_count(),
        "versions": package_versions.of(names),
    }


JOBS = {
    "folder": folder,
    "mel": mel,
    "encode": encode,
    "logits": logits,
    "greedy": greedy,
    "diarizer": diarizer,
    "train": training.train,
    "start": start,
    "peak_sgemm": peak_sgemm,
    "peak_blas": peak_blas,
    "peak_copy": peak_copy,
}

if __name__ == "__main__":
    allocator.keep_pages()  # as job.graph does
    serve(JOBS, hello)
