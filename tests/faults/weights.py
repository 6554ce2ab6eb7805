"""Damaged and hostile weight files through the loaders of Hugging Face folders, OpenAI checkpoints and PEFT adapters.

What must hold: a file that is not exactly the network it says is refused in one line of ours that names it, nothing in
a pickle is ever called, and what is accepted holds finite numbers of the right shapes.
"""

import collections
import io
import json
import pickle
import random
import shutil
import struct
import zipfile
from pathlib import Path

import isolation
import numpy as np
from table import Row

CANARY = "moejax-canary"  # a file that a pickle with code would make


def run(tries: int, folder: Path, seed: int) -> list[Row]:
    cases = [(list(KINDS)[number % len(KINDS)], number) for number in range(tries)]
    bad, said = [], collections.Counter()
    for case, outcome in isolation.each(f"{__name__}:loaded", cases, seconds=120.0, shared=(folder, seed)):
        said[outcome.get("said", outcome.get("fault"))] += 1
        if "fault" in outcome:
            bad.append(f"{case}: {outcome['fault']}, {outcome['detail']}")
    note = ", ".join(f"{name} {count}" for name, count in said.most_common())
    failed = f"; FAILED: {' | '.join(bad[:10])}" if bad else ""
    return [Row("damaged and hostile weights", tries, tries - len(bad), note=note + failed)]


class Code:
    """Unpickled, it would run a command."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.folder / CANARY),)


def originals(folder: Path):
    """Writes hf/, model.pt and peft/ once: a tiny published-like Whisper and a LoRA of it."""
    import tiny_model

    from moejax.convert import hf_whisper, low_rank, peft_lora, torch_file

    if (folder / "peft").exists():
        return
    tiny_model.write(folder / "hf", timed=True)
    config, params = hf_whisper.load(folder / "hf")
    torch_file.write(folder / "model.pt", _openai(config, params))
    rng = np.random.default_rng(0)
    D, R = config.d_model, 2
    update = low_rank.LowRank(
        rng.normal(size=(D, R)).astype(np.float32), rng.normal(size=(R, D)).astype(np.float32), 2.0
    )
    (folder / "peft").mkdir()
    peft_lora.save(folder / "peft", config, {"decoder/layers/0/self_attn/q": update}, base="x", stabilised=False)


def _openai(config, params) -> dict:
    """The checkpoint of a network that OpenAI's format can nearly express: what is read, not what is exported."""
    from moejax.convert import hf_whisper, openai_whisper

    theirs = hf_whisper.to_hf(config, params)
    by_place = {place: key for key, (place, _) in openai_whisper.key_map(config).items()}
    state = {by_place[place]: theirs[key] for key, (place, _) in hf_whisper.key_map(config).items()}
    dims = {theirs: getattr(config, ours) for theirs, ours in openai_whisper._DIMS.items()}
    return {"dims": dims, "model_state_dict": state}


def loaded(case, folder, seed) -> dict:
    """{"said": "refused" or "used"}. Errors: whatever must not be."""
    from moejax import __main__ as cli
    from moejax.convert import hf_whisper, openai_whisper, peft_lora
    from moejax.nn.functional import paths
    from moejax.text.tokenizer import Tokenizer

    kind, number = case
    draw = random.Random(f"{seed} {number} {kind}")
    originals(folder)
    place = folder / "broken"
    shutil.rmtree(place, ignore_errors=True)
    loader, must_refuse = KINDS[kind](draw, folder, place)
    try:
        if loader == "hf":
            _, params = hf_whisper.load(place)
        elif loader == "vocabulary":
            tokenizer, params = Tokenizer.from_hf_folder(place), {}
            tokenizer.decode(tokenizer.encode("the cat"))
        elif loader == "openai":
            _, params = openai_whisper.load(place / "model.pt")
        else:
            config = hf_whisper.load_config(folder / "hf")
            params = {name: {"A": u.A_DR, "B": u.B_RO} for name, u in peft_lora.load(place, config).items()}
    except Exception as error:
        _must(cli.foreseen(error), f"{type(error).__name__}: {error}")
        said = str(error)
        _must("\n" not in said and len(said) < 2000 and str(place) in said, f"not one line that names it: {said[:300]}")
        _must(kind != "sound", f"refused: {said}")
        return {"said": "refused"}
    finally:
        _must(not (folder / CANARY).exists(), "code in a pickle was run")
    _must(not must_refuse, "accepted")
    for path, leaf in paths(params).items():
        _must(bool(np.isfinite(leaf).all()), f"{path} is not finite")
    return {"said": "used"}


def _copy(folder, place, what):
    if what == "openai":
        place.mkdir()
        shutil.copy(folder / "model.pt", place)
        return place / "model.pt"
    shutil.copytree(folder / what, place)
    return place / ("model.safetensors" if what == "hf" else "adapter_model.safetensors")


def sound(draw, folder, place):
    what = draw.choice(("hf", "openai", "peft"))
    _copy(folder, place, what)
    return what, False


def cut(draw, folder, place):
    what = draw.choice(("hf", "openai", "peft"))
    file = _copy(folder, place, what)
    content = file.read_bytes()
    file.write_bytes(content[: draw.randrange(len(content))])
    return what, True


def flipped(draw, folder, place):
    """Bits anywhere: a number may be another, and is then finite."""
    what = draw.choice(("hf", "openai", "peft"))
    file = _copy(folder, place, what)
    content = bytearray(file.read_bytes())
    within = draw.choice((64, 4096, len(content)))
    first = draw.choice((0, max(0, len(content) - within)))
    for _ in range(draw.choice((1, 10, 100))):
        content[first + draw.randrange(min(within, len(content)))] ^= 1 << draw.randrange(8)
    file.write_bytes(bytes(content))
    return what, False


def header(draw, folder, place):
    """A safetensors header that lies: its length, an offset, a shape, a type."""
    what = draw.choice(("hf", "peft"))
    file = _copy(folder, place, what)
    content = file.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    entries = json.loads(content[8 : 8 + size])
    name = draw.choice([key for key in entries if key != "__metadata__"])
    change = draw.randrange(6)
    if change == 0:
        size = draw.choice((0, 1, 2**63, 2**40, len(content), 2**64 - 1))
        file.write_bytes(struct.pack("<Q", size) + content[8:])
        return what, True
    if change == 1:
        entries[name]["data_offsets"] = draw.choice(([0, 2**60], [8, 4], [-1, 4], [0], "all"))
    elif change == 2:
        entries[name]["shape"] = draw.choice(([2**40, 2**40], [1], [], [-1], "big", [0]))
    elif change == 3:
        entries[name]["dtype"] = draw.choice(("I32", "U8", "F64", "BOOL", "F128", 3, "F8_E4M3"))
    elif change == 4:
        entries[name] = draw.choice((None, [], 3))
    else:
        entries = draw.choice(([], "x", 3, None))
    text = json.dumps(entries).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])
    return what, True


def keys(draw, folder, place):
    """A key is missing, more, or called otherwise; a shape, type or number is wrong."""
    import safetensors.numpy

    what = draw.choice(("hf", "peft"))
    file = _copy(folder, place, what)
    tensors = safetensors.numpy.load_file(file)
    name, change = draw.choice(sorted(tensors)), draw.randrange(6)
    if change == 0:
        del tensors[name]
    elif change == 1:
        tensors["model.decoder.more.weight"] = np.zeros(3, np.float32)
    elif change == 2:
        tensors[name + "x"] = tensors.pop(name)
    elif change == 3:
        tensors[name] = draw.choice((tensors[name][:-1], tensors[name][None], np.zeros((0,), np.float32)))
    elif change == 4:
        tensors[name] = draw.choice((np.zeros(tensors[name].shape, np.int32), np.zeros(tensors[name].shape, bool)))
    else:
        tensors[name] = tensors[name].copy()
        tensors[name].reshape(-1)[0] = draw.choice((np.nan, np.inf, -np.inf))
    safetensors.numpy.save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, file)
    return what, True


def settings(draw, folder, place):
    """config.json, adapter_config.json or the index says what cannot be."""
    what = draw.choice(("hf", "hf", "peft"))
    _copy(folder, place, what)
    file = place / ("config.json" if what == "hf" else "adapter_config.json")
    found = json.loads(file.read_text())
    if draw.random() < 0.3:
        file.write_bytes(
            draw.choice(
                (
                    b"",
                    b"[]",
                    b"null",
                    b"{",
                    b"\xff\xfe{}",
                    b"[" * 100_000,
                    b'{"d_model": ' + b"9" * 5000 + b"}",
                    b"3",
                    b'"x"',
                )
            )
        )
        return what, True
    wrong = (0, -1, 2**70, "two", None, 2.5, True, [3], {"a": 1})
    if what == "hf":
        names = [name for name in found if name.endswith(("_layers", "_heads", "_dim", "_positions", "_bins", "_size"))]
        names = [name for name in names if name != "num_hidden_layers"] + ["d_model", "moejax"]
        name = draw.choice(names)
        found[name] = draw.choice([value for value in wrong if not (name == "moejax" and isinstance(value, dict))])
        if name == "moejax" and draw.random() < 0.5:
            found[name] = {"hop": draw.choice((0, -5, "x", 10**9, None, [1]))}
            if found[name]["hop"] is None:
                file.write_text(json.dumps(found))
                return what, False
    else:
        name = draw.choice(("r", "lora_alpha", "rank_pattern", "alpha_pattern", "peft_type", "bias"))
        found[name] = (
            draw.choice((0, -1, "two", [3], True)) if "pattern" not in name else draw.choice((3, "x", {"(": 2}, [1]))
        )
    file.write_text(json.dumps(found))
    return what, True


def index(draw, folder, place):
    """An index of shards that leads elsewhere."""
    file = _copy(folder, place, "hf")
    file.unlink()
    name = draw.choice(
        (
            "../hf/model.safetensors",
            str(folder / "hf" / "model.safetensors"),
            3,
            None,
            "",
            "none.safetensors",
            ".",
            "config.json",
        )
    )
    entries = draw.choice(({"weight_map": {"a": name}}, {"weight_map": [name]}, {"weight_map": name}, {}, [name]))
    (place / "model.safetensors.index.json").write_text(json.dumps(entries))
    return "hf", True


def code(draw, folder, place):
    """A pickle that would run something, where a torch file's data.pkl, a whole file or an adapter should be."""
    what = draw.choice(("openai", "peft"))
    file = _copy(folder, place, what)
    evil = pickle.dumps(
        draw.choice((Code(folder), {"dims": Code(folder)}, [Code(folder)])), protocol=draw.choice((2, 4))
    )
    if what == "peft":
        file.unlink()
        file = place / "adapter_model.bin"
    if draw.random() < 0.3:
        file.write_bytes(evil)
        return what, True
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("model/data.pkl", evil)
        archive.writestr("model/byteorder", b"little")
    file.write_bytes(stream.getvalue())
    return what, True


def program(draw, folder, place):
    """The pickle of a torch file with other bytes."""
    file = _copy(folder, place, "openai")
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in parts if name.endswith("data.pkl"))
    content = bytearray(parts[name])
    for _ in range(draw.choice((1, 3, 20))):
        content[draw.randrange(len(content))] = draw.randrange(256)
    parts[name] = bytes(content)
    with zipfile.ZipFile(
        file, "w", draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    ) as archive:
        for entry, data in parts.items():
            archive.writestr(entry, data)
    return "openai", False


def checkpoint(draw, folder, place):
    """A torch file that is sound and is no such Whisper."""
    from moejax.convert import torch_file

    file = _copy(folder, place, "openai")
    found = torch_file.read(file)
    state, dims = dict(found["model_state_dict"]), dict(found["dims"])
    name, change = draw.choice(sorted(state)), draw.randrange(6)
    if change == 0:
        del state[name]
    elif change == 1:
        state["more"] = np.zeros(2, np.float32)
    elif change == 2:
        state[name] = draw.choice((np.zeros(1, np.float32), 3, "text", None, np.zeros(state[name].shape, np.int64)))
    elif change == 3:
        dims[draw.choice(sorted(dims))] = draw.choice((0, -1, 2**40, "x", None, True, 2.5))
    elif change == 4:
        whole = draw.choice(
            (
                {"dims": dims},
                (1, 2),
                "text",
                {"dims": 3, "model_state_dict": 4},
                {"dims": dims, "model_state_dict": (1,)},
            )
        )
        torch_file.write(file, whole)
        return "openai", True
    else:
        state[name] = np.full(state[name].shape, np.nan, np.float32)
    torch_file.write(file, {"dims": dims, "model_state_dict": state})
    return "openai", True


def vocabulary(draw, folder, place):
    """The files of the vocabulary, damaged or of another kind."""
    _copy(folder, place, "hf")
    file = place / "tokenizer.json"
    content = bytearray(file.read_bytes())
    change = draw.randrange(3)
    if change == 0:
        content = content[: draw.randrange(len(content))]
    elif change == 1:
        content = draw.choice((b"", b"[]", b"{}", b"\xff", b"null", b'{"model": 3}'))
    else:
        for _ in range(draw.choice((1, 10, 100))):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(bytes(content))
    return "vocabulary", change < 2


def other(draw, folder, place):
    """Something else altogether in the file's place."""
    what = draw.choice(("hf", "openai", "peft"))
    file = _copy(folder, place, what)
    file.write_bytes(
        draw.choice((b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), draw.randbytes(300), b"\x80\x04.", b"{}" * 9))
    )
    return what, True


def _must(holds: bool, otherwise: str):
    if not holds:
        raise AssertionError(otherwise)


KINDS = {
    function.__name__: function
    for function in (sound, cut, flipped, header, keys, settings, index, code, program, checkpoint, vocabulary, other)
}
