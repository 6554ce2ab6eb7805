"""`model.bin` of CTranslate2, read without ctranslate2: named arrays, and names that stand for others.

    u32 version; from version 2 on: the model's kind, u32 revision of its layout
    u32 count, and so many variables: name, u8 rank, u32 dimensions, u8 type, u32 bytes, data
    (before version 4: u8 width of a number in place of the type, u32 count of numbers in place of the bytes)
    from version 3 on: u32 count, and so many pairs of names: an alias, what it stands for

A name is a u16 length, so many bytes, the last of them zero. All numbers are little-endian. Described by
python/ctranslate2/specs/model_spec.py and src/models/model.cc; checked against its converter.
"""

import dataclasses
import math
import mmap
import pathlib
import struct

import ml_dtypes
import numpy as np

from moejax.errors import BadValue

NEWEST = 6  # version of the format
_TYPES: tuple[np.dtype, ...] = tuple(
    np.dtype(kind) for kind in (np.float32, np.int8, np.int16, np.int32, np.float16, ml_dtypes.bfloat16)
)
_WIDTHS = {4: np.dtype(np.float32), 2: np.dtype(np.int16), 1: np.dtype(np.int8)}  # before version 4
_GLOBAL_INT16_SCALE = 1000.0  # of 16-bit weights that were saved without their scale
_SCALE = "_scale"


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """What a file holds. Arrays lie in the mapped file until they are copied."""

    path: pathlib.Path
    kind: str  # "" in version 1
    arrays: dict[str, np.ndarray]
    aliases: dict[str, str]

    def names(self) -> set[str]:
        """Names of all variables, aliases too, without the scales of quantized ones."""
        return {name for name in (*self.arrays, *self.aliases) if not self._is_scale(name)}

    def shape(self, name: str) -> tuple[int, ...]:
        """Its shape."""
        return self._array(name).shape

    def array(self, name: str) -> np.ndarray:
        """A variable in the numbers that it was saved in; quantized ones as float32."""
        found = self._array(name)
        if found.dtype not in (np.int8, np.int16) or not found.ndim:
            return found
        scale = self.arrays.get(self._of(name) + _SCALE)
        if scale is None and found.dtype == np.int8:
            raise BadValue(f"{self.path}: {name} is quantized, and there is no {self._of(name)}{_SCALE}")
        scale = np.float32(_GLOBAL_INT16_SCALE) if scale is None else scale.astype(np.float32)
        if scale.shape not in ((), found.shape[:1]) or not (np.isfinite(scale).all() and (scale > 0).all()):
            raise BadValue(f"{self.path}: {self._of(name)}{_SCALE} is no scale of {name} {found.shape}")
        # One number for all, or one for each row of the first axis
        return found.astype(np.float32) / scale.reshape(scale.shape + (1,) * (found.ndim - 1) * scale.ndim)

    def _of(self, name: str) -> str:
        return self.aliases.get(name, name)

    def _array(self, name: str) -> np.ndarray:
        return self.arrays[self._of(name)]

    def _is_scale(self, name: str) -> bool:
        """Whether a name is that of the scale of a variable with whole numbers."""
        scaled = self.arrays.get(self._of(name.removesuffix(_SCALE)))
        return name.endswith(_SCALE) and scaled is not None and scaled.dtype in (np.int8, np.int16)


def read(path: str | pathlib.Path) -> ModelFile:
    """The variables of a file. Errors: FileNotFoundError; BadValue naming the file and where it is broken."""
    path = pathlib.Path(path)
    with open(path, "rb") as file:
        try:
            memory = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except ValueError:  # an empty file cannot be mapped
            raise BadValue(f"{path}: is empty") from None
    return _Reader(path, memory).model()


class _Reader:
    """Reads a file from its start to its end."""

    def __init__(self, path: pathlib.Path, memory: memoryview):
        self.path, self.memory, self.at = path, memory, 0

    def model(self) -> ModelFile:
        version = self.number("<I")
        if not 1 <= version <= NEWEST:
            raise BadValue(f"{self.path}: no CTranslate2 model (version {version}; known: 1 to {NEWEST})")
        kind = self.name() if version >= 2 else ""
        if version >= 2:
            self.number("<I")  # revision of the layout: what there is shows in the names
        arrays: dict[str, np.ndarray] = {}
        for _ in range(self.number("<I")):
            name = self.name()
            if name in arrays:
                raise BadValue(f"{self.path}: {name} is there twice")
            arrays[name] = self.array(name, version)
        pairs = [(self.name(), self.name()) for _ in range(self.number("<I"))] if version >= 3 else []
        if self.at != len(self.memory):
            raise BadValue(f"{self.path}: {len(self.memory) - self.at} bytes follow on the last name")
        for alias, name in pairs:
            if name not in arrays or alias in arrays:
                raise BadValue(f"{self.path}: {alias} cannot stand for {name}")
        return ModelFile(self.path, kind, arrays, dict(pairs))

    def array(self, name: str, version: int) -> np.ndarray:
        shape = tuple(self.number("<I") for _ in range(self.number("<B")))
        kind, size = self.number("<B"), self.number("<I")
        if version >= 4:
            dtype = _TYPES[kind] if kind < len(_TYPES) else None
        else:
            dtype, size = _WIDTHS.get(kind), size * kind
        if dtype is None:
            raise BadValue(f"{self.path}: {name} has numbers of the unknown type {kind}")
        if size != math.prod(shape) * dtype.itemsize:
            raise BadValue(f"{self.path}: {name} {shape} has {size} bytes of {dtype}")
        return np.frombuffer(self.take(size), dtype).reshape(shape)

    def name(self) -> str:
        raw = bytes(self.take(self.number("<H")))
        if not raw.endswith(b"\0"):
            raise BadValue(f"{self.path}: no name at byte {self.at - len(raw)}")
        return raw[:-1].decode("utf-8", errors="replace")

    def number(self, layout: str) -> int:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def take(self, size: int) -> memoryview:
        found = self.memory[self.at : self.at + size]
        if len(found) < size:
            raise BadValue(f"{self.path}: ends at byte {len(self.memory)}, in the middle of something")
        self.at += size
        return found
