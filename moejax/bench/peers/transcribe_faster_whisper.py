"""A user's script: `python transcribe_faster_whisper.py JSON` with faster-whisper, every recording in turn.

JSON: model (a folder), files, output (a folder for NAME.txt), language, compute_type, batch_size (0: `WhisperModel`,
window after window; else `BatchedInferencePipeline`), threads. Imports nothing of moejax: this process is timed.
"""

import json
import pathlib
import sys

from faster_whisper import BatchedInferencePipeline, WhisperModel


def main(asked):
    model = WhisperModel(asked["model"], compute_type=asked["compute_type"], cpu_threads=asked["threads"])
    options = {"language": asked["language"], "beam_size": 1, "temperature": 0.0}
    if asked["batch_size"]:
        model = BatchedInferencePipeline(model)
        options["batch_size"] = asked["batch_size"]
    for file in map(pathlib.Path, asked["files"]):
        segments, _ = model.transcribe(str(file), **options)
        text = "".join(segment.text for segment in segments)
        (pathlib.Path(asked["output"]) / f"{file.stem}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
