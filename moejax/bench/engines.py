"""Who takes part in `moejax bench transcribe` and `serve`: our commands, and scripts of peers with the same weights."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from moejax.bench.served import NAME
from moejax.bench.side import ROOT
from moejax.convert import ctranslate2_model, find, hf_whisper, openai_whisper, whisper_folder
from moejax.errors import Failed, NotThere
from moejax.text.tokenizer import Tokenizer

OURS, FASTER, OPENAI = "moejax", "faster-whisper", "openai-whisper"
INSTALL = 'pip install "moejax[peers]"'
_PEERS = Path(__file__).parent / "peers"


@dataclasses.dataclass(frozen=True)
class Models:
    """The same weights for everybody: `asked` as the user named it, `folder` where that lies, and a place for
    conversions.
    """

    asked: str
    folder: Path
    language: str
    place: Path

    def faster_whisper(self) -> Path:
        """A folder that faster-whisper reads: the model itself, or what CTranslate2's converter makes of it."""
        if self.folder.is_dir() and whisper_folder.is_ctranslate2(self.folder):
            return self.folder
        made = self.place / "ctranslate2"
        if not made.is_dir():
            if not self.folder.is_dir() or not (self.folder / "tokenizer.json").is_file():
                raise NotThere(f"{self.folder} has no tokenizer.json, which faster-whisper wants")
            # In a process of its own, which takes torch away with it.
            code = f"from {ctranslate2_model.__name__} import convert; import sys; convert(*sys.argv[1:])"
            argv = [sys.executable, "-c", code, str(self.folder), str(made)]
            done = subprocess.run(argv, capture_output=True, text=True, env=environment())
            if done.returncode:
                raise Failed(f"no CTranslate2 folder: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
            (made / "tokenizer.json").write_bytes((self.folder / "tokenizer.json").read_bytes())
        return made

    def openai_whisper(self) -> Path:
        """A checkpoint that openai-whisper reads, in float16 as the published ones."""
        if self.folder.is_file():
            return self.folder
        made = self.place / "openai.pt"
        if not made.is_file():
            config, params = whisper_folder.load(self.folder)
            openai_whisper.save(made, config, params, tokenizer=Tokenizer.from_hf_folder(self.folder))
        return made

    def bytes(self) -> int:
        """Size of its files."""
        return find.size(self.folder) if self.folder.is_dir() else self.folder.stat().st_size


@dataclasses.dataclass(frozen=True)
class Engine:
    """One way to transcribe: `argv(models, files, output)` is its command, `missing` the module without which there is
    none. Ours have a `first` start, with no compiled programs at hand.
    """

    name: str
    pipeline: str
    argv: Callable[[Models, list[str], Path], list[str]]
    needs: str = ""

    @property
    def ours(self) -> bool:
        return self.name == OURS

    def missing(self) -> str:
        """What to install, or ""."""
        absent = self.needs and importlib.util.find_spec(self.needs) is None
        return f"{self.name} is not installed ({INSTALL})" if absent else ""


def _ours(*options: str) -> Callable:
    # What the peers are told too: greedy, no second try of a window that fails.
    greedy = ("--temperature", "0", "--temperature_increment_on_fallback", "None", "--format", "txt")

    def argv(models, files, output):
        told = ("--model", models.asked, "--language", models.language, "--output_dir", str(output))
        return [sys.executable, "-m", "moejax", "transcribe", *files, *told, *greedy, *options]

    return argv


def _faster(compute_type: str, batch_size: int) -> Callable:
    def argv(models, files, output):
        return _script(
            "transcribe_faster_whisper.py",
            model=str(models.faster_whisper()),
            files=files,
            output=str(output),
            language=models.language,
            compute_type=compute_type,
            batch_size=batch_size,
        )

    return argv


def _openai(models, files, output):
    return _script(
        "transcribe_openai_whisper.py",
        model=str(models.openai_whisper()),
        files=files,
        output=str(output),
        language=models.language,
    )


def _our_server(*options: str) -> Callable:
    def argv(models, files, output):
        told = ("--model", f"{NAME}={models.asked}", "--port", "0")
        return [sys.executable, "-m", "moejax", "serve", *told, *options]

    return argv


def _faster_server(compute_type: str) -> Callable:
    def argv(models, files, output):
        return _script(
            "serve_faster_whisper.py",
            model=str(models.faster_whisper()),
            language=models.language,
            compute_type=compute_type,
            batch_size=8,
        )

    return argv


def _script(name, **asked):
    return [sys.executable, str(_PEERS / name), json.dumps({**asked, "threads": os.cpu_count()})]


ENGINES = (
    Engine(OURS, "sequential float32", _ours()),
    Engine(OURS, "sequential bfloat16", _ours("--weights", "bfloat16")),
    Engine(OURS, "chunked float32", _ours("--chunked")),
    Engine(OURS, "chunked bfloat16", _ours("--chunked", "--weights", "bfloat16")),
    Engine(FASTER, "sequential int8", _faster("int8", 0), "faster_whisper"),
    Engine(FASTER, "batched int8", _faster("int8", 8), "faster_whisper"),
    Engine(FASTER, "sequential float32", _faster("float32", 0), "faster_whisper"),
    Engine(FASTER, "batched float32", _faster("float32", 8), "faster_whisper"),
    Engine(OPENAI, "sequential float32", _openai, "whisper"),
)

SERVERS = (  # they hear no files and write none: these come by requests
    Engine(OURS, "float32", _our_server()),
    Engine(OURS, "bfloat16", _our_server("--weights", "bfloat16")),
    Engine(FASTER, "batched int8", _faster_server("int8"), "faster_whisper"),
    Engine(FASTER, "batched float32", _faster_server("float32"), "faster_whisper"),
)


def environment(cache: Path | None = None) -> dict[str, str]:
    """What processes are given: this very copy of moejax, and a folder for compiled programs."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"PYTHONPATH": paths} | ({"MOEJAX_COMPILATION_CACHE": str(cache)} if cache else {})


def spelling(folder: Path) -> dict[str, str] | None:
    """The spelling variants of a Whisper folder (normalizer.json), for the English rule; None where it has none."""
    file = folder / "normalizer.json"
    return hf_whisper.read_json(file) if file.is_file() else None
