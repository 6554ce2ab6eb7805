"""What a corpus of many rows costs, in CPU seconds and memory, by reference to the same few clips.

    python tests/data/scale.py describe --rows 1000000            a packed corpus becomes a manifest
    python tests/data/scale.py train --rows 1000000 --batches 200 [--workers 2] [--step 0.2] [--vocabulary FILE]

Prints one line of JSON: seconds of CPU and of the clock by part, peak of the resident memory (and of what is no mapped
file) in MB. --step: seconds that a pretended training step takes; `wait` is the share of the time spent on waiting for
data then. --clips: a folder with metadata.csv (file, text) of real speech, else tones. --vocabulary: of tiktoken.
Both with --work FOLDER: train reads the manifest that describe wrote there.
"""

import argparse
import json
import logging
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CLIPS = 16


class Words:
    """As much of a tokenizer as batches need: one id for each letter."""

    eot = 0

    def encode(self, text):
        return [1 + ord(letter) % 255 for letter in text]


class Laps:
    """Seconds of CPU and of the clock since the last lap, by name."""

    def __init__(self):
        self.found, self.at = {}, (time.process_time(), time.monotonic())

    def lap(self, name):
        now = (time.process_time(), time.monotonic())
        self.found[name] = [round(new - old, 2) for new, old in zip(now, self.at, strict=True)]
        self.at = now


def memory() -> dict:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    # VmHWM: what getrusage says is also the peak of whoever started this process
    peak, anonymous = (round(int(status[name].split()[0]) / 1024) for name in ("VmHWM", "RssAnon"))
    return {"peak": peak, "anonymous": anonymous}


def clips(folder: Path, given: str | None) -> Path:
    """A packed folder of a few clips."""
    import packed_corpus

    source = Path(given) if given else folder / "source"
    if not given:
        packed_corpus.write(source, CLIPS)
    packed_corpus.packed(source, folder / "packed", shard_bytes=256_000_000)
    return folder / "packed"


def by_reference(packed: Path, rows: int):
    """`Shards` of so many rows, each with an id and text of its own, whose table is mapped from a file."""
    import pyarrow as pa

    from moejax.data.shards.table import SCHEMA
    from moejax.data.sources.arrayrecord import Shards

    few = Shards.opened(str(packed))
    place = np.arange(rows) % min(len(few), CLIPS)
    path = packed / f"{rows}.table"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        for at in range(0, rows, 1 << 16):
            own = np.arange(at, min(at + (1 << 16), rows))
            table = few.table.take(pa.array(place[own]))
            new = {
                "id": [f"utterance-{row:09d}" for row in own],
                "text": [f"{text} {row}" for text, row in zip(table.column("text").to_pylist(), own, strict=True)],
                "speaker": [f"speaker-{row // 100}" for row in own],
                "recording": [f"{row:024x}" for row in own],
            }
            for name, values in new.items():
                number = table.schema.get_field_index(name)
                table = table.set_column(number, SCHEMA.field(name), pa.array(values, pa.string()))
            writer.write_table(table)
    table = pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all()
    shard = np.zeros(rows, np.int32)
    return Shards(str(packed), few.names, table, shard, place.astype(np.int32), "by reference")


class Work:
    """As much of a workdir as `describe` needs."""

    def __init__(self, root: Path):
        self.root = root

    def path(self, *parts):
        return self.root.joinpath(*parts)

    def log(self, line):
        del line

    def progress(self, iterable, total=None, desc=""):
        return iterable


def describe(work: Work, shards) -> None:
    """The stage, on these rows."""
    from ml_collections import ConfigDict

    from moejax.training import describe as stage
    from moejax.work import fields

    cfg = ConfigDict(fields.defaults(stage.SECTIONS))
    cfg.data.source = "arrayrecord"
    stage.SOURCES["arrayrecord"] = lambda root: shards
    stage.run(cfg, work)


def train(work: Work, laps: Laps, options) -> dict:
    """Batches as training fetches them, from the manifest in W."""
    from moejax.data.collate import Collator, Tokens, Utterances
    from moejax.data.manifest import Manifest
    from moejax.data.pipeline import BatchPlan, loader
    from moejax.work.context import Corpus, _Rows

    corpus = Corpus(work, 64 << 20)
    assert isinstance(corpus.manifest, Manifest)
    laps.lap("open")
    rows = corpus.rows("train")
    tokens = Tokens(corpus.manifest.strings("text", rows), [1, 2, 3], tokenizer(options.vocabulary))
    samples = corpus.samples[rows]
    collate = Collator(
        Utterances(_Rows(corpus.audio, rows), samples, tokens, 3, 0),
        (options.window,),
        cohorts=corpus.cohort_index(rows),
    )
    plan = BatchPlan(samples, (options.window,), batch_size=options.batch, names=corpus.manifest.strings("id", rows))
    plan.digest()
    laps.lap("plan")
    source = loader(plan, collate, workers=options.workers)
    waited, began = 0.0, None
    for number in range(options.batches + 1):
        asked = time.monotonic()
        next(source)
        if number:
            waited += time.monotonic() - asked
        else:
            laps.lap("first batch")
            began = time.monotonic()
        time.sleep(options.step)
    laps.lap("batches")
    source.close()
    return {"wait": round(waited / (time.monotonic() - began), 4), "rows": len(rows)}


def tokenizer(vocabulary: str | None):
    from moejax.text.tokenizer import Tokenizer

    return Words() if vocabulary is None else Tokenizer.from_tiktoken(vocabulary, multilingual=False)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("describe", "train"))
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--clips")
    parser.add_argument("--vocabulary")
    parser.add_argument("--batches", type=int, default=50)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--window", type=int, default=480_000, help="samples that each utterance is padded to")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--step", type=float, default=0.0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    folder = options.work or Path(tempfile.mkdtemp())
    work, said = Work(folder / f"w{options.rows}"), {}
    if options.what == "train":
        import moejax.work.context  # noqa: F401 - what every training has imported

        before = memory()
        laps = Laps()
        said = train(work, laps, options)
    else:
        packed = folder / "packed" if (folder / "packed").exists() else clips(folder, options.clips)
        shards = by_reference(packed, options.rows)
        import moejax.training.describe  # noqa: F401

        before = memory()
        laps = Laps()
        describe(work, shards)
        laps.lap("describe")
    print(json.dumps({"rows": options.rows, **said, "before": before, "after": memory(), "seconds": laps.found}))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
