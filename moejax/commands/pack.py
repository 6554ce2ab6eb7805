"""`moejax pack`: a corpus of any size into shards that training reads at random."""

import sys
import time

from moejax.commands import parser
from moejax.errors import BadValue

DESCRIPTION = """Packs a corpus into ArrayRecord shards: recordings as FLAC at their own rate, each with its text and
what is known of it, in files of about 256 MB, beside tables of everything but the sound. A run opens it by
  --config.data.source=arrayrecord --config.data.root=DEST
and describes it without listening again, because everything was measured while it was packed.

SOURCE is one of
  folder       metadata.csv (.tsv, .jsonl) with columns file (or audio, file_name), text, speaker, ..., and its audio
  manifest     such a table on its own; its audio may lie anywhere, by paths relative to the table
  webdataset   .tar files: a/17.flac with a/17.txt or a/17.json
  hf           a folder of save_to_disk, or of many of these (chunks), of .arrow or .parquet files, or an id of the hub,
               which is streamed
and --source says which, where it cannot be seen. --columns names columns that are called otherwise:
  --columns audio=path,text=sentence,speaker=client_id
Columns that moejax does not know are kept in the records.

What cannot be read is listed in DEST/bad.csv and left out. A packing that was interrupted or killed goes on with the
same command, from the last whole shard; the files are the same as without, and with any number of workers.
"""
EPILOG = """examples:
  moejax pack corpus/ packed/
  moejax pack common_voice.tsv packed/ --columns audio=path,text=sentence,speaker=client_id --language de
  moejax pack tars/ packed/ --workers 8 --shard_megabytes 512
  moejax pack mozilla-foundation/common_voice_11_0 packed/ --source hf --name de --split train
  moejax pack --verify packed/                  reads all of it, and says which file is damaged
"""
PLAIN_EVERY_SECONDS = 10.0


def add(commands) -> None:
    ours = parser.add(
        commands, "pack", run, usage="moejax pack SOURCE DEST [options]", description=DESCRIPTION, epilog=EPILOG
    )
    add = ours.add_argument
    add("places", nargs="*", metavar="SOURCE DEST", help="what is packed, and the new folder for it")
    add("--source", metavar="KIND", help="folder, manifest, webdataset or hf; guessed if not given")
    add("--columns", metavar="FIELD=COLUMN,...", default="", help="columns that are called otherwise than their fields")
    add("--text", default="keep", metavar="HOW", help="keep; lower or sentence for transcripts in capitals")
    add("--language", default="", metavar="CODE", help="of rows that name none, such as de; kept in the records")
    add("--split", metavar="PART", help="hf: this part alone, such as train")
    add("--name", metavar="NAME", help="hf: the dataset's configuration, such as de")
    add("--shard_megabytes", type=parser.whole, default=256, metavar="N", help="size of a shard (default 256)")
    add("--workers", type=parser.whole, default=2, metavar="N", help="processes that read and encode (default 2)")
    add("--verify", action="store_true", help="compare every file of DEST with its SHA-256")


def run(options, left: list[str]) -> int:
    options.parser.refuse(left)
    if options.verify:
        return _verify(options.places)
    if len(options.places) != 2:
        raise BadValue(f"wants SOURCE and DEST, got {' '.join(options.places) or 'neither'}; --help has examples")
    if not 1 <= options.shard_megabytes <= 100_000:
        raise BadValue(f"--shard_megabytes {options.shard_megabytes}: 1 to 100000")
    if options.workers > 1024:
        raise BadValue(f"--workers {options.workers}: 0 to 1024")
    # Imported here: --help does not wait for NumPy and Arrow.
    from moejax.data.shards import source
    from moejax.data.shards.packing import pack
    from moejax.data.shards.table import BAD
    from moejax.data.sources.folder import FIELDS, TEXT

    place, dest = options.places
    if options.source not in (None, *source.KINDS):
        raise BadValue(f"--source {options.source!r}: {', '.join(source.KINDS)}")
    if options.text not in TEXT:
        raise BadValue(f"--text {options.text!r}: {', '.join(TEXT)}")
    kind = options.source or source.guessed(place)
    if kind != "hf" and (options.split or options.name):
        raise BadValue(f"--{'split' if options.split else 'name'} is for hf alone; {place} is read as {kind}")
    columns = _columns(options.columns, FIELDS)
    taken = source.Source(kind, place, columns, options.text, options.language, options.split, options.name)
    size = options.shard_megabytes * 1_000_000
    with _Progress(taken.count()) as progress:
        outcome = pack(
            taken.utterances(),
            dest,
            made_from=taken.described(),
            shard_bytes=size,
            processes=options.workers,
            told=progress.told,
        )
    standing = "was packed before: " if outcome.before else ""
    shards = f"{outcome.shards} shard{'s' * (outcome.shards != 1)}"
    print(f"{dest}: {standing}{outcome.records} utterances, {outcome.hours:.2f} h in {shards}")
    if outcome.bad:
        print(f"{outcome.bad} could not be used: {dest.rstrip('/')}/{BAD} says which, and why")
    return 0


def _verify(places: list[str]) -> int:
    if len(places) != 1:
        raise BadValue("--verify wants one packed folder: moejax pack --verify DEST")
    from moejax.data.shards import table

    table.verify(places[0])
    print(f"{places[0]}: all {len(table.read_index(places[0])['shards'])} shards are as they were packed")
    return 0


def _columns(said: str, fields) -> dict[str, str]:
    """{field: column} of FIELD=COLUMN,..."""
    found = {}
    for part in filter(None, said.split(",")):
        field, equals, column = part.partition("=")
        if not equals or field not in fields:
            raise BadValue(f"--columns {part!r}: FIELD=COLUMN, where FIELD is one of {', '.join(fields)}")
        found[field] = column
    return found


class _Progress:
    """A bar with what is done and left on a terminal, a plain line every few seconds elsewhere; both on stderr."""

    def __init__(self, total: int | None):
        from tqdm import tqdm

        self.began = self.last = time.monotonic()
        self.rows = self.bad = self.here = 0
        self.total, self.seconds = total, 0.0
        self.bar = tqdm(
            total=total, desc="pack", unit="row", file=sys.stderr, disable=not sys.stderr.isatty(), mininterval=0.5
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.bar.close()

    def told(self, rows: int, seconds: float, bad: int, before: bool = False):
        """So many more; `before`: they stood already, and say nothing of how fast it goes."""
        self.rows, self.seconds, self.bad = self.rows + rows, self.seconds + seconds, self.bad + bad
        self.here += 0 if before else rows
        if before:
            self.bar.initial = self.bar.n = self.rows
            return
        self.bar.set_postfix_str(self._said(), refresh=False)
        self.bar.update(rows)
        now = time.monotonic()
        if self.bar.disable and now - self.last > PLAIN_EVERY_SECONDS:
            self.last, rate = now, self.here / (now - self.began)
            left = f", {max(0, self.total - self.rows) / rate:.0f} s left" if self.total else ""
            of = f" of {self.total}" if self.total else ""
            print(f"pack: {self.rows}{of} rows, {rate:.0f} rows/s, {self._said()}{left}", file=sys.stderr, flush=True)

    def _said(self) -> str:
        return f"{self.seconds / 3600:.2f} h" + (f", {self.bad} bad" if self.bad else "")
