"""Files of `torch.save`, read and written without torch and without running what a pickle asks for.

Since torch 1.6 such a file is an uncompressed zip: `<name>/data.pkl` is a pickle in which a tensor is a call of
`torch._utils._rebuild_tensor_v2` on a storage named by a persistent id, and `<name>/data/<key>` are the storages' raw
bytes. Described in torch's docs/source/notes/serialization.rst; checked against torch's own reader and writer.
"""

import collections
import dataclasses
import io
import mmap
import pathlib
import pickle
import struct
import zipfile
import zlib
from typing import Any

import ml_dtypes
import numpy as np

from moejax.errors import BadValue
from moejax.runtime.files import replacing

ALIGNMENT = 64  # torch maps the file and reads storages where they lie
_STORAGES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
_NAME_OF = {dtype: name for name, dtype in _STORAGES.items()}
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # the magic number of torch < 1.6, pickled
# What a damaged pickle makes Python's unpickler raise.
_BROKEN = (
    *(pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError),
    *(MemoryError, RecursionError, struct.error),
)
# What a damaged archive makes zipfile raise, beside its own error: flags of encryption, unknown compression, offsets.
_DAMAGED = (*_BROKEN, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError)


class NotATorchFile(BadValue):
    """A file that this module does not read; the message names file and reason in one line."""


@dataclasses.dataclass(frozen=True)
class _StorageType:
    """Stands for a global such as torch.HalfStorage; it can be named in a pickle and nothing else."""

    dtype: np.dtype


class Unread:
    """Stands for an object of somebody's class, which is not made; takes what a pickle would fill it with."""

    def __new__(cls, *unread, **named):
        del unread, named
        return super().__new__(cls)

    def __init__(self, *unread, **named):
        pass

    def __setstate__(self, state):
        pass

    def __setitem__(self, key, value):
        pass

    def append(self, value: Any) -> None:
        """Items of somebody's list."""


def read(path: str | pathlib.Path, *, skip: bool = False) -> Any:
    """The object of a file: dicts, lists, tuples, numbers, strings, and tensors as read-only numpy arrays.

    Arrays lie in the mapped file until they are copied, with the strides that they were saved with. Errors:
    `NotATorchFile` for another format, a damaged file, or a pickle that names a global other than tensors, storages
    and OrderedDict (nothing else is ever called). With `skip` an `Unread` stands where the pickle asks for such a
    global, and still nothing of it is called: checkpoints of a training have their options beside the tensors.
    """
    path = pathlib.Path(path)
    with open(path, "rb") as file:
        head = file.read(len(_LEGACY))
        if head.startswith(_LEGACY):
            raise NotATorchFile(f"{path}: torch's format before 1.6; save it again with a newer torch")
        if not head.startswith(b"PK\x03\x04"):
            raise NotATorchFile(f"{path}: not a torch.save file (a zip archive with a data.pkl in it)")
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            with zipfile.ZipFile(file) as archive:
                return _unpickled(path, archive, memory, skip)
        except NotATorchFile:
            raise
        except _DAMAGED as error:
            raise NotATorchFile(f"{path}: a damaged zip archive ({_one_line(error)})") from error


def arrays(path: str | pathlib.Path, found: Any) -> dict[str, np.ndarray]:
    """`found`, which was read of this file, if it is arrays by name. Errors: `NotATorchFile` naming what is not."""
    if not isinstance(found, dict):
        raise NotATorchFile(f"{path}: holds a {type(found).__name__} where arrays by name belong")
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, np.ndarray):
            raise NotATorchFile(f"{path}: {key!r:.80} is a {type(value).__name__}, not an array by name")
    return found


def _unpickled(path, archive, memory, skip):
    entries = {entry.filename: entry for entry in archive.infolist()}
    pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise NotATorchFile(f"{path}: a zip archive, but not of torch.save: it has no data.pkl")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
        raise NotATorchFile(f"{path}: saved on a big-endian machine; only little-endian files are supported")

    def storage(key, dtype, count):
        return _storage(path, memory, entries.get(f"{root}data/{key}"), f"data/{key}", dtype, count)

    try:
        return _Reader(io.BytesIO(archive.read(pickles[0])), path, storage, skip).load()
    except (NotATorchFile, zipfile.BadZipFile):
        raise
    except _BROKEN as error:
        raise NotATorchFile(f"{path}: data.pkl cannot be read ({type(error).__name__}: {_one_line(error)})") from error


def _one_line(error) -> str:
    return " ".join(str(error).split())[:300]


def _storage(path, memory, entry, name, dtype, count):
    """The numbers of one storage, in the mapped file."""
    if entry is None or entry.compress_type != zipfile.ZIP_STORED:
        raise NotATorchFile(f"{path}: storage {name} is {'missing' if entry is None else 'compressed'}")
    # The name and the padding before the data may be longer here than in the central directory.
    name_bytes, extra_bytes = struct.unpack_from("<HH", memory, entry.header_offset + 26)
    start = entry.header_offset + 30 + name_bytes + extra_bytes
    if entry.file_size < count * dtype.itemsize or start + entry.file_size > len(memory):
        raise NotATorchFile(f"{path}: storage {name} has {entry.file_size} bytes, want {count * dtype.itemsize}")
    return np.frombuffer(memory, dtype, count, start)


class _Reader(pickle.Unpickler):
    """Knows the globals of a file of tensors, and refuses every other."""

    def __init__(self, file, path, storage, skip=False):
        super().__init__(file, encoding="utf-8")
        self._path, self._storage, self._open, self._skip = path, storage, {}, skip

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if module == "torch" and name in _STORAGES:
            return _StorageType(_STORAGES[name])
        if self._skip:
            return Unread
        raise NotATorchFile(
            f"{self._path}: its pickle asks for {module}.{name}; only dicts, lists, numbers, strings and plain tensors "
            "are read"
        )

    def persistent_load(self, pid: Any) -> np.ndarray:
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage" or not isinstance(pid[1], _StorageType):
            raise NotATorchFile(f"{self._path}: its pickle refers to {pid!r:.80}, not to a storage")
        _, kind, key, _, count = pid
        if key not in self._open:
            self._open[key] = self._storage(key, kind.dtype, count)
        return self._open[key]

    def _tensor(self, storage, offset, shape, strides, requires_grad=False, hooks=None, metadata=None):
        if any(size == 0 for size in shape):
            return np.zeros(shape, storage.dtype)
        if len(shape) != len(strides):
            raise NotATorchFile(f"{self._path}: a tensor of shape {tuple(shape)} has {len(strides)} strides")
        last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
        if offset < 0 or min(strides, default=0) < 0 or last >= storage.size:
            raise NotATorchFile(f"{self._path}: a tensor of shape {tuple(shape)} reaches beyond its storage")
        steps = [step * storage.itemsize for step in strides]
        return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)


def write(path: str | pathlib.Path, value: Any) -> None:
    """Writes dicts, tuples, numbers, strings, None, booleans and numpy arrays (as contiguous tensors) for torch.load.

    Also `torch.load(weights_only=True)` reads it. Whole or not at all. Errors: TypeError naming a value that has no
    place in such a file.
    """
    path = pathlib.Path(path)
    program = _Program()
    program.put(value)
    root = path.stem or "archive"
    with replacing(path) as partial:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            _add(archive, f"{root}/data.pkl", b"\x80\x02" + b"".join(program.codes) + b".")
            _add(archive, f"{root}/byteorder", b"little")
            for key, array in enumerate(program.storages):
                # One array in the file's memory order at a time: the tree may be larger than what is free.
                flat = np.ascontiguousarray(array).reshape(-1)
                _add(archive, f"{root}/data/{key}", flat.view(np.uint8).data)
            _add(archive, f"{root}/version", b"3\n")


def _add(archive, name, data):
    """One uncompressed entry whose data start at a multiple of `ALIGNMENT`, by an extra field as torch writes it."""
    entry = zipfile.ZipInfo(name)
    start = archive.fp.tell() + 30 + len(name.encode()) + 4  # local header, name, header of the extra field
    padding = -start % ALIGNMENT
    entry.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    archive.writestr(entry, data)


class _Program:
    """A protocol-2 pickle without a memo: what `torch.save` would emit for the same value, spelled out."""

    def __init__(self):
        self.codes, self.storages = [], []

    def put(self, value: Any) -> None:
        if isinstance(value, np.ndarray):
            self._tensor(value)
        elif isinstance(value, dict):
            self.codes.append(b"}(")
            for pair in value.items():
                self.put(pair[0])
                self.put(pair[1])
            self.codes.append(b"u")
        elif isinstance(value, tuple):
            self.codes.append(b"(")
            for item in value:
                self.put(item)
            self.codes.append(b"t")
        else:
            self.codes.append(_scalar(value))

    def _tensor(self, array):
        if array.dtype not in _NAME_OF:
            raise TypeError(f"no torch storage for arrays of {array.dtype}; known: {', '.join(map(str, _NAME_OF))}")
        key, steps = len(self.storages), [1]
        self.storages.append(array)
        for size in array.shape[:0:-1]:
            steps.append(steps[-1] * size)
        self.codes.append(b"ctorch._utils\n_rebuild_tensor_v2\n((")
        self.codes += [_scalar("storage"), f"ctorch\n{_NAME_OF[array.dtype]}\n".encode()]
        self.codes += [_scalar(str(key)), _scalar("cpu"), _scalar(array.size), b"tQ", _scalar(0)]
        self.put(tuple(array.shape))
        self.put(tuple(steps[::-1][: array.ndim]) if array.ndim else ())
        self.codes += [_scalar(False), b"ccollections\nOrderedDict\n)RtR"]


def _scalar(value) -> bytes:
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, str):
        text = value.encode("utf-8")
        return b"X" + struct.pack("<I", len(text)) + text
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, int) and -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return b"\x8a\x08" + struct.pack("<q", value)
    raise TypeError(f"{type(value).__name__} has no place in a torch file written here")
