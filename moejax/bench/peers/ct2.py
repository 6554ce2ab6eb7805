"""CTranslate2, the engine of faster-whisper: greedy decoding in float32 or int8 of the folder that its own converter
makes.
"""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import ctranslate2
import numpy as np

from moejax.bench import inputs
from moejax.bench.worker import Job, serve
from moejax.errors import Failed

DEVICE = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"


def converted(folder) -> Path:
    """The folder in CTranslate2's format, made once by its converter in a process that takes torch away with it."""
    target = Path(f"{folder}.ct2")
    if not (target / "model.bin").is_file():
        command = [sys.executable, "-m", "ctranslate2.converters.transformers", "--model", str(folder)]
        done = subprocess.run([*command, "--output_dir", str(target), "--force"], capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"the converter failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return target


def greedy(options) -> Job:
    """`Whisper.generate`, no beam, the end token suppressed; "compute" is float32 or int8.

    max_length is doubled because the engine takes half of it for the text.
    """
    model = ctranslate2.models.Whisper(
        str(converted(options["folder"])),
        device=DEVICE,
        compute_type=options["compute"],
        intra_threads=os.cpu_count(),
        inter_threads=1,
    )
    mel_BNM = inputs.mel(options["batch"], options["seconds"], options["bins"])
    mel = ctranslate2.StorageView.from_array(np.ascontiguousarray(mel_BNM.transpose(0, 2, 1)))
    prompts = [list(options["prefix"])] * options["batch"]

    def run():
        return model.generate(
            mel,
            prompts,
            beam_size=1,
            max_length=2 * options["tokens"],
            suppress_blank=False,
            suppress_tokens=list(options["suppress"]),
        )

    return Job(run, lambda results: [result.sequences_ids[0] for result in results])


def hello() -> dict:
    return {"device": DEVICE, "versions": {"ctranslate2": importlib.metadata.version("ctranslate2")}}


if __name__ == "__main__":
    serve({"greedy": greedy}, hello)
