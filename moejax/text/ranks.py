"""Byte-level BPE as published vocabularies list it: tokens by rank; and the merges that follow from these."""

import base64
import pathlib

from moejax.errors import BadValue


def read(path):
    """{token bytes: rank} of a tiktoken file."""
    ranks = {}
    for number, line in enumerate(pathlib.Path(path).read_text(encoding="ascii").splitlines(), 1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token)] = int(rank)
        except ValueError as error:
            raise BadValue(f"{path}, line {number}: want a base64 token and its rank, found {line[:40]!r}") from error
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise BadValue(f"{path}: the ranks of its {len(ranks)} tokens are not 0 to {len(ranks) - 1}, each once")
    return ranks


def merges_of(ranks):
    """Vocabulary and merge list, in the byte alphabet of the tokenizers library, of a table of ranks.

    A token of several bytes was made by one merge; which one is found by splitting the token with the merges before it.
    The result tokenises as the ranks do. The multilingual file's last token is empty: no merge makes it.
    """
    alphabet = byte_alphabet()
    spell = {token: "".join(alphabet[byte] for byte in token) for token in ranks}
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) < 2:
            continue
        parts = _split(token, ranks, rank)
        if len(parts) != 2:
            raise BadValue(f"token {token!r} of rank {rank} is not one merge of two earlier tokens")
        merges.append((spell[parts[0]], spell[parts[1]]))
    return {spell[token]: rank for token, rank in ranks.items()}, merges


def _split(token, ranks, limit):
    """Parts of a token under all merges of rank below `limit`, lowest rank first."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 1:
        rank, at = min((ranks.get(parts[i] + parts[i + 1], limit), i) for i in range(len(parts) - 1))
        if rank >= limit:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def byte_alphabet():
    """GPT-2's printable stand-in for each byte: itself where printable, else the next character from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    return {**{byte: chr(byte) for byte in printable}, **{byte: chr(0x100 + i) for i, byte in enumerate(others)}}
