"""How many bytes of samples AIFF, AU, CAF and W64 declare: libsndfile reads half of such a file without a word."""

import struct
from typing import BinaryIO

from moejax.audio.flaws import Flaws
from moejax.audio.spliced import size

HEADS = (b"FORM", b".snd", b"caff", b"riff")
_MAX_CHUNKS = 1000
_SLACK_BYTES = 256
_DATA = {b"FORM": b"SSND", b"caff": b"data", b"riff": b"data"}
# Bytes of the file's header, of a chunk's name, format of its length, what that counts too, what chunks are padded to
_LAYOUT = {b"FORM": (12, 4, ">I", 0, 2), b"caff": (8, 4, ">q", 0, 1), b"riff": (40, 16, "<q", 24, 8)}


def check(stream: BinaryIO, head: bytes, flaws: Flaws) -> None:
    """Tells of a file that ends before its samples do. Errors: `Undecodable`."""
    end = size(stream)
    promised, present = _au(head, end) if head[:4] == b".snd" else _chunks(stream, head[:4], end)
    if promised - present > _SLACK_BYTES:
        detail = f"the header promises {promised} bytes of samples, {present} are there"
        flaws.add("truncated", f"truncated: {detail}")


def _au(head, end) -> tuple[int, int]:
    begin, promised = struct.unpack(">II", head[4:12])
    return (0 if promised == 0xFFFFFFFF else promised), max(0, end - begin)


def _chunks(stream, kind, end) -> tuple[int, int]:
    """(bytes that the samples' chunk declares, bytes from there to the end of the file); (0, 0) where none is found."""
    at, named, field, own, even = _LAYOUT[kind]
    for _ in range(_MAX_CHUNKS):
        stream.seek(at)
        head = stream.read(named + struct.calcsize(field))
        if len(head) < named + struct.calcsize(field):
            break
        count = struct.unpack(field, head[named:])[0] - own
        begin = at + len(head)
        if head[:4] == _DATA[kind]:
            return count, end - begin  # a CAF that is still written declares -1
        if count < 0:
            break
        at = begin + count + -count % even
    return 0, 0
