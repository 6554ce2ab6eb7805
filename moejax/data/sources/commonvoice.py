"""Mozilla Common Voice as it is released: train.tsv, dev.tsv and test.tsv of a language, and its recordings in clips/.

Its tables are not CSV: nothing is quoted, and a sentence may begin with a quotation mark. Every speaker is in one part.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from moejax.data.manifest import Utterance
from moejax.data.sources.folder import TEXT, inside, normalise, text_of
from moejax.errors import BadValue, NotThere

PARTS = ("train", "dev", "test")
_NEEDED = ("client_id", "path", "sentence")
_GENDERS = {"male": "m", "male_masculine": "m", "female": "f", "female_feminine": "f"}


def load(*, root: str, parts: Sequence[str] = PARTS, text: str = "keep") -> list[Utterance]:
    """Utterances of a language's folder `root`, in the order of its tables.

    parts: tables that are read, by their names without .tsv; the name is the part of the corpus ("validated" has
        train, dev, test and more, and is none). text: as in the folder source. Ids are the names of the recordings.
    Use data.split="official": speakers are apart there. Errors (one line each): a folder, table or column that is not
    there, a row that is none.
    """
    if text not in TEXT:
        raise BadValue(f"commonvoice: text={text!r}; known: {', '.join(TEXT)}")
    if not root or not Path(root, "clips").is_dir():
        raise NotThere(
            f"commonvoice: no folder {str(Path(root, 'clips'))!r}; data.root is a language's folder, with clips/"
        )
    if unknown := [part for part in parts if part not in PARTS]:
        raise BadValue(f"commonvoice: parts={unknown[0]!r}; known: {', '.join(PARTS)}")
    return [utterance for part in parts for utterance in _part(Path(root).absolute(), part, text)]


def _part(root: Path, part: str, how: str) -> Iterator[Utterance]:
    table, clips = root / f"{part}.tsv", str(root / "clips")
    for number, row in _rows(table):
        where = f"{table}: line {number}"
        name = text_of(row["path"], "audio", f"{where}, 'path'")
        if not name:
            raise BadValue(f"{where} has an empty 'path'")
        name = name if Path(name).suffix else f"{name}.mp3"  # as the first releases had it
        yield Utterance(
            id=Path(name).stem,
            audio=inside(clips, clips, name, where=where),
            text=normalise(text_of(row["sentence"], "text", f"{where}, 'sentence'"), how),
            speaker=row["client_id"],
            accent=row.get("accents") or row.get("accent") or "",
            gender=_GENDERS.get(row.get("gender", ""), row.get("gender", "")),
            split=part,
            language=row.get("locale", ""),
        )


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, {column: field}) of each row."""
    if not table.is_file():
        raise NotThere(f"commonvoice: no table {table}; data.options.parts says which are read")
    with open(table, encoding="utf-8", newline="\n") as file:
        try:
            names = next(file, "").rstrip("\r\n").split("\t")
            if missing := [name for name in _NEEDED if name not in names]:
                raise BadValue(f"{table}: no column {missing[0]!r}; it has {', '.join(names)}")
            for number, line in enumerate(file, start=2):
                fields = line.rstrip("\r\n").split("\t")
                if len(fields) != len(names):
                    raise BadValue(f"{table}: line {number} has {len(fields)} fields, the header has {len(names)}")
                yield number, dict(zip(names, fields, strict=True))
        except UnicodeDecodeError as error:
            raise BadValue(f"{table} is not UTF-8 text (byte 0x{error.object[error.start]:02x})") from error
