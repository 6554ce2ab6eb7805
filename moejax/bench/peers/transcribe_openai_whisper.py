"""A user's script: `python transcribe_openai_whisper.py JSON` with openai-whisper, every recording in turn.

JSON: model (a .pt file), files (16 kHz WAV: reading them here spares it the program ffmpeg), output (a folder for
NAME.txt), language, threads. Imports nothing of moejax: this process is timed.
"""

import json
import pathlib
import sys
import wave

import numpy as np
import torch
import whisper


def main(asked):
    torch.set_num_threads(asked["threads"])
    model = whisper.load_model(asked["model"])
    for file in map(pathlib.Path, asked["files"]):
        with wave.open(str(file), "rb") as sound:
            audio = np.frombuffer(sound.readframes(sound.getnframes()), np.int16).astype(np.float32) / 32768.0
        found = whisper.transcribe(
            model, audio, language=asked["language"], temperature=0.0, fp16=model.device.type == "cuda"
        )
        (pathlib.Path(asked["output"]) / f"{file.stem}.txt").write_text(found["text"], encoding="utf-8")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
