import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from moejax.data.manifest import COLUMNS, UNKNOWN, Manifest


def columns(count=4, **changes):
    values = {name: [f"{name}{row}" for row in range(count)] for name in COLUMNS}
    values["audio"] = [f"describe/audio/{row}.flac" for row in range(count)]
    values["seconds"] = [1.0 + row for row in range(count)]
    values["silence"] = [0.25] * count
    values["snr"] = [20.0] * count
    values["split"] = [("train", "dev", "test")[row % 3] for row in range(count)]
    values["sample"] = [row % 2 == 0 for row in range(count)]
    return values | changes


def test_a_saved_manifest_comes_back_equal_and_leaves_no_other_file(tmp_path):
    saved = Manifest.from_columns(columns(), root=tmp_path)
    saved.save(tmp_path / "describe/manifest.parquet")
    loaded = Manifest.load(tmp_path / "describe/manifest.parquet")
    assert loaded.rows() == saved.rows()
    assert loaded.digest() == saved.digest()
    assert [path.name for path in (tmp_path / "describe").iterdir()] == ["manifest.parquet"]


def test_relative_audio_is_resolved_against_the_root_and_absolute_audio_is_left(tmp_path):
    manifest = Manifest.from_columns(columns(2, audio=["describe/audio/0.flac", "/corpus/1.wav"]), root=tmp_path)
    manifest.save(tmp_path / "describe/manifest.parquet")
    moved = Manifest.load(tmp_path / "describe/manifest.parquet", root="/elsewhere")
    assert moved.audio_paths() == ["/elsewhere/describe/audio/0.flac", "/corpus/1.wav"]
    assert Manifest.load(tmp_path / "describe/manifest.parquet").row(0)["audio"] == str(
        tmp_path.resolve() / "describe/audio/0.flac"
    )


@pytest.mark.parametrize("name", [name for name in COLUMNS if name != "split"])
def test_the_digest_notices_every_column(name):
    changed = columns()
    last = changed[name][-1]
    changed[name] = [
        *changed[name][:-1],
        last + 0.5 if name in ("seconds", "snr") else last / 2 if name == "silence" else last,
    ]
    if isinstance(last, str):
        changed[name][-1] = last + "x"
    if name == "sample":
        changed[name][-1] = not last
    assert Manifest.from_columns(changed).digest() != Manifest.from_columns(columns()).digest()


def test_the_digest_notices_text_that_moved_between_rows():
    one, two = (Manifest.from_columns(columns(2, text=text)) for text in (["ab", "c"], ["a", "bc"]))
    assert one.digest() != two.digest()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": ["a", "b", "a", "c"]}, "'a' stands in more than one row"),
        ({"text": ["x", " ", "y", "z"]}, "row 1 .* empty text"),
        ({"split": ["train", "eval", "dev", "test"]}, "'eval' is unknown; known: train, dev, test"),
        ({"seconds": [1.0, 1.0, float("nan"), 1.0]}, "row 2 .* seconds nan"),
        ({"silence": [0.0, 0.0, 0.0, 1.5]}, "row 3 .* silence 1.5"),
        ({"speaker": ["a", None, "b", "c"]}, "'speaker' has 1 null"),
    ],
)
def test_wrong_values_are_named_in_one_line(changes, words):
    with pytest.raises(ValueError, match=words) as raised:
        Manifest.from_columns(columns(**changes))
    assert "\n" not in str(raised.value)


def test_loading_names_a_missing_file_column_and_type(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.parquet"):
        Manifest.load(tmp_path / "nowhere.parquet")
    (tmp_path / "junk.parquet").write_text("junk")
    with pytest.raises(ValueError, match="not a parquet file"):
        Manifest.load(tmp_path / "junk.parquet")
    table = Manifest.from_columns(columns()).table
    pq.write_table(table.drop_columns(["speaker"]), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="no column 'speaker'"):
        Manifest.load(tmp_path / "a.parquet")
    pq.write_table(table.set_column(2, "text", table["seconds"]), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="'text' is double, not string"):
        Manifest.load(tmp_path / "b.parquet")


def test_a_manifest_from_before_device_and_noise_loads_and_keeps_its_digest(tmp_path):
    old = Manifest.from_columns({name: x for name, x in columns().items() if name not in UNKNOWN})
    pq.write_table(old.table.drop_columns(list(UNKNOWN)), tmp_path / "old.parquet")
    loaded = Manifest.load(tmp_path / "old.parquet")
    assert set(loaded.column("device")) == {""} and np.isnan(loaded.column("snr")).all()
    assert loaded.digest() == old.digest() == "a16d7e41f3144efc2b705a1723d93cf3"
    assert loaded.digest() != Manifest.from_columns(columns()).digest()


def test_selecting_rows():
    manifest = Manifest.from_columns(columns(9))
    assert manifest.indices(split="dev").tolist() == [1, 4, 7]
    assert manifest.indices(split=["dev", "test"], sample=True).tolist() == [2, 4, 8]
    assert manifest.where(split="test").column("id").tolist() == ["id2", "id5", "id8"]
    assert manifest.take([3, 0]).column("id").tolist() == ["id3", "id0"]
    with pytest.raises(KeyError, match="columns: id, audio"):
        manifest.column("speakers")


def test_a_long_manifest_loads_in_seconds(tmp_path):
    count = 200_000
    rows = np.char.add("row", np.arange(count).astype(str)).tolist()
    names = {name: [""] * count for name in COLUMNS} | {"id": rows, "text": rows, "audio": rows}
    names |= {
        "seconds": np.ones(count),
        "silence": np.zeros(count),
        "snr": np.full(count, np.nan),
        "split": ["train"] * count,
        "sample": [True] * count,
    }
    Manifest.from_columns(names).save(tmp_path / "m.parquet")
    start = time.process_time()
    manifest = Manifest.load(tmp_path / "m.parquet")
    assert manifest.row(count - 1)["id"] == f"row{count - 1}"
    assert time.process_time() - start < 4.0
