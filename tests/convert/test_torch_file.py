"""Files of tensors: what goes in comes out, and nothing in a file is ever called."""

import collections
import io
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from moejax.convert import torch_file

rng = np.random.default_rng(0)
TREE = {
    "dims": {"n_mels": 80, "big": 2**40, "small": -1, "half": 0.5, "on": True, "off": False, "none": None},
    "größe": ("text", (), (1, 2)),
    "tensors": {
        "f32": rng.normal(size=(3, 4)).astype(np.float32),
        "f16": rng.normal(size=(2, 1, 3)).astype(np.float16),
        "bf16": rng.normal(size=5).astype(ml_dtypes.bfloat16),
        "i64": np.arange(6).reshape(2, 3),
        "bool": np.array([True, False]),
        "scalar": np.array(2.5, np.float64),
        "empty": np.zeros((0, 3), np.float32),
        "turned": rng.normal(size=(4, 6)).astype(np.float32).T[::2],
    },
}


class Global:
    """Pickled as a reference to a name that need not exist."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Pickler(pickle._Pickler):
    """Writes `Global`s as such, calls as tuples (Global, arguments) and storages as persistent ids."""

    def persistent_id(self, value):
        return value[1] if isinstance(value, tuple) and value[:1] == ("pid",) else None

    def save_global_name(self, value):
        self.write(f"c{value.module}\n{value.name}\n".encode())

    dispatch = {**pickle._Pickler.dispatch, Global: save_global_name}


class Call:
    """Pickled as function(*arguments)."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments


def save_call(self, value):
    self.save(value.function)
    self.save(value.arguments)
    self.write(b"R")


Pickler.dispatch[Call] = save_call


def archive(path, value, storages=(), *, compression=zipfile.ZIP_STORED, order=b"little"):
    """A file as torch.save lays it out, with any pickle in it."""
    out = io.BytesIO()
    Pickler(out, 2).dump(value)
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("any/data.pkl", out.getvalue())
        file.writestr("any/byteorder", order)
        for key, data in enumerate(storages):
            file.writestr(f"any/data/{key}", np.asarray(data).tobytes())
    return path


def tensor(count, offset, shape, strides, kind="FloatStorage", key="0"):
    pid = ("pid", ("storage", Global("torch", kind), key, "cpu", count))
    rebuild = Global("torch._utils", "_rebuild_tensor_v2")
    return Call(rebuild, pid, offset, shape, strides, False, collections.OrderedDict())


def same(found, want):
    assert type(found) is type(want)
    if isinstance(want, dict):
        assert list(found) == list(want)
        for key in want:
            same(found[key], want[key])
    elif isinstance(want, np.ndarray):
        assert (found.dtype, found.shape) == (want.dtype, want.shape)
        np.testing.assert_array_equal(found, want)
    else:
        assert found == want


def test_round_trip(tmp_path):
    torch_file.write(tmp_path / "x.pt", TREE)
    same(torch_file.read(tmp_path / "x.pt"), TREE)
    assert [p.name for p in tmp_path.iterdir()] == ["x.pt"]


def test_storages_are_aligned_and_uncompressed(tmp_path):
    torch_file.write(tmp_path / "x.pt", TREE)
    data = (tmp_path / "x.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "x.pt") as file:
        assert file.testzip() is None
        for entry in file.infolist():
            name, extra = struct.unpack_from("<HH", data, entry.header_offset + 26)
            assert entry.compress_type == zipfile.ZIP_STORED
            assert (entry.header_offset + 30 + name + extra) % torch_file.ALIGNMENT == 0


def test_strides_offsets_and_shared_storages(tmp_path):
    numbers = np.arange(24, dtype=np.float32)
    turned, part = tensor(24, 0, (6, 4), (1, 6)), tensor(24, 5, (2, 3), (6, 1))
    found = torch_file.read(archive(tmp_path / "x.pt", {"turned": turned, "part": part}, [numbers]))
    np.testing.assert_array_equal(found["turned"], numbers.reshape(4, 6).T)
    np.testing.assert_array_equal(found["part"], [[5, 6, 7], [11, 12, 13]])
    assert np.shares_memory(found["turned"], found["part"]) and not found["part"].flags.writeable


@pytest.mark.parametrize(
    "evil",
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch", "load"),
        ("torch", "FloatStorage.__class__"),
        ("collections", "OrderedDict.fromkeys"),
        ("numpy", "load"),
    ],
)
def test_every_other_global_is_refused_by_name_before_it_is_called(tmp_path, evil):
    touched = tmp_path / "touched"
    path = archive(tmp_path / "x.pt", {"a": Call(Global(*evil), f"touch {touched}")})
    with pytest.raises(ValueError, match=f"{evil[0]}.{evil[1]}") as error:
        torch_file.read(path)
    assert "\n" not in str(error.value) and not touched.exists()


@pytest.mark.parametrize(
    "value",
    [
        tensor(24, 20, (6,), (1,)),
        tensor(24, 0, (5, 5), (5, 1)),
        tensor(24, -1, (2,), (1,)),
        tensor(24, 0, (2,), (-1,)),
        tensor(25, 0, (2,), (1,)),
        tensor(24, 0, (2,), (1,), kind="DoubleStorage"),
        tensor(24, 0, (2,), (1,), key="7"),
        tensor(24, 0, ("a",), (1,)),
        tensor(24, 0, (2, 2), (1,)),
        ("pid", ("module", "x")),
        ("pid", "x"),
    ],
)
def test_tensors_stay_inside_their_storage(tmp_path, value):
    with pytest.raises(ValueError, match="x.pt") as error:
        torch_file.read(archive(tmp_path / "x.pt", {"a": value}, [np.zeros(24, np.float32)]))
    assert "\n" not in str(error.value)


def test_other_formats_are_named(tmp_path):
    numbers, path = [np.zeros(24, np.float32)], tmp_path / "x.pt"
    good = {"a": tensor(24, 0, (24,), (1,))}
    for content, message in (
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.rest", "before 1.6"),
        (b"GGUF....", "not a torch.save file"),
        (b"", "not a torch.save file"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            torch_file.read(path)
    with pytest.raises(ValueError, match="compressed"):
        torch_file.read(archive(path, good, numbers, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match="big-endian"):
        torch_file.read(archive(path, good, numbers, order=b"big"))
    whole = archive(path, good, numbers).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        torch_file.read(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", "x")
    with pytest.raises(ValueError, match="no data.pkl"):
        torch_file.read(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", b"\x80\x02}q")
    with pytest.raises(ValueError, match="data.pkl cannot be read"):
        torch_file.read(path)
    with pytest.raises(FileNotFoundError):
        torch_file.read(tmp_path / "nowhere.pt")


def test_a_value_without_a_place_is_an_error_and_leaves_no_file(tmp_path):
    for value in ({"a": object()}, {"a": np.zeros(2, np.complex64)}, {"a": 2**70}):
        with pytest.raises(TypeError):
            torch_file.write(tmp_path / "x.pt", value)
    assert list(tmp_path.iterdir()) == []
