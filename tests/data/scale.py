"""What a corpus of many rows costs, in CPU seconds and memory, by reference to the same few clips.

    python tests/data/scale.py table --rows 500000 --work FOLDER --clips AN4 --clips FSDD     for `moejax pack`
    python tests/data/scale.py pack --rows 500000 --work FOLDER     packs it, and hears each clip once
    python tests/data/scale.py link --rows 500000 --work FOLDER     the same from one shard, without time and disk
    python tests/data/scale.py describe --rows 1000000            a packed corpus becomes a manifest
    python tests/data/scale.py train --rows 1000000 --batches 200 [--workers 2] [--step 0.2] [--vocabulary FILE]

Prints one line of JSON: seconds of CPU and of the clock by part, peak of the resident memory (and of what is no mapped
file) in MB. --step: seconds that a pretended training step takes; `wait` is the share of the time spent on waiting for
data then. --clips: a folder with metadata.csv (file, text) of real speech, else tones. --vocabulary: of tiktoken.
Both with --work FOLDER: train reads the manifest that describe wrote there.

table writes FOLDER/rows.csv: 0.4 % of the rows are dev, 3.2 % test, of the last folder of clips, all others train, of
the first; 100 rows are of one speaker. pack writes what `moejax pack --text sentence FOLDER/rows.csv FOLDER/packed`
does, byte for byte, and goes on with it. link makes FOLDER/linked of FOLDER/packed, which is small: shards with tables
of their own (id, text, speaker, digest), whose sound is hard links to what was packed.
"""

import argparse
import csv
import json
import logging
import os
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


def table(path: Path, rows: int, folders: list[Path]) -> None:
    """A table of so many rows, each with an id and text of its own, of the clips of these folders."""
    corpora = []
    for folder in (folders[0], folders[-1]):
        with open(folder / "metadata.csv", newline="", encoding="utf-8") as file:
            corpora.append([(folder.resolve() / row["file"], row["text"], folder.name) for row in csv.DictReader(file)])
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "audio", "text", "speaker", "cohort", "split"))
        for row in range(rows):
            part = "dev" if row % 250 == 0 else "test" if row % 250 < 9 else "train"
            clips = corpora[part != "train"]
            audio, text, cohort = clips[row % len(clips)]
            writer.writerow((f"utterance-{row:09d}", audio, f"{text} {row}", f"speaker-{row // 100}", cohort, part))


def pack(folder: Path) -> None:
    """FOLDER/rows.csv into FOLDER/packed, as `moejax pack` does; a clip that was heard before is not heard again."""
    from moejax.audio import records
    from moejax.data.shards import packing, recording, workers
    from moejax.data.shards.source import Source

    known: dict[str, tuple] = {}

    def packed(utterances, processes):
        for utterance in utterances:
            if utterance.audio not in known:
                first = recording.packed(utterance)
                known[utterance.audio] = first.row, records.decoded(first.record).audio
            row, flac = known[utterance.audio]
            own = {name: getattr(utterance, name) or "" for name in recording.TEXTS}
            said = {name: value for name, value in own.items() if value} | {"rate": row["rate"]}
            yield recording.Packed(records.encoded(said, flac), {**row, **own})

    workers.packed = packed
    taken = Source("manifest", str(folder / "rows.csv"), {}, text="sentence", language="en")
    print(packing.pack(taken.utterances(), folder / "packed", made_from=taken.described()))


def link(folder: Path, rows: int) -> None:
    """FOLDER/linked: the corpus FOLDER/packed again and again, under other names, until it has so many rows."""
    import pyarrow as pa

    from moejax.data.shards import table
    from moejax.runtime.files import write_json

    packed, linked = folder / "packed", folder / "linked"
    index = table.read_index(packed)
    linked.mkdir()
    shards: list[dict] = []
    for copy in range(rows // index["records"]):
        for one in index["shards"]:
            found = table.read_table(packed / table.table_name(one["name"]))
            new = {
                **{name: [f"{old}-{copy:04d}" for old in found.column(name).to_pylist()] for name in ("id", "speaker")},
                "text": [f"{text} {copy}" for text in found.column("text").to_pylist()],
                "recording": [f"{copy:08x}{place:016x}" for place in range(len(found))],
            }
            for name, values in new.items():
                number = found.schema.get_field_index(name)
                found = found.set_column(number, found.schema.field(name), pa.array(values, pa.string()))
            name = table.shard_name(len(shards))
            os.link(packed / one["name"], linked / name)
            with pa.OSFile(str(linked / table.table_name(name)), "wb") as file:
                with pa.ipc.new_file(file, found.schema) as writer:
                    writer.write_table(found)
            shards.append({**one, "name": name, "table_sha256": table.sha256(linked / table.table_name(name))})
    records = sum(one["records"] for one in shards)
    hours = round(sum(one["seconds"] for one in shards) / 3600, 6)
    write_json(linked / table.INDEX, {**index, "records": records, "hours": hours, "shards": shards})


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
    parser.add_argument("what", choices=("table", "pack", "link", "describe", "train"))
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--clips", action="append")
    parser.add_argument("--vocabulary")
    parser.add_argument("--batches", type=int, default=50)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--window", type=int, default=480_000, help="samples that each utterance is padded to")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--step", type=float, default=0.0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    folder = options.work or Path(tempfile.mkdtemp())
    if options.what == "table":
        return table(folder / "rows.csv", options.rows, [Path(one) for one in options.clips])
    if options.what in ("pack", "link"):
        return pack(folder) if options.what == "pack" else link(folder, options.rows)
    work, said = Work(folder / f"w{options.rows}"), {}
    if options.what == "train":
        import moejax.work.context  # noqa: F401 - what every training has imported

        before = memory()
        laps = Laps()
        said = train(work, laps, options)
    else:
        packed = (
            folder / "packed" if (folder / "packed").exists() else clips(folder, options.clips and options.clips[0])
        )
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
