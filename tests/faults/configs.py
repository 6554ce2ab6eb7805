"""Broken configs through the command line: `moejax config` reads a config as every command does, before any work.

What must hold: a config that no run could carry out ends in exit code 1 and one line that names the key; what is
accepted can be carried out (the second row runs whole jobs with it).
"""

import collections
import contextlib
import io
import random
import shutil
from pathlib import Path

import isolation
import tiny_job
from table import Row

from moejax.work.folder import nest

NAN, INF = float("nan"), float("inf")
# Keys whose None is a value.
# Single keys that take values of few kinds, combinations that cannot be, and what the line must name.
TOGETHER = [
    ({"data.min_seconds": 5.0, "data.max_seconds": 2.0}, "data.min_seconds"),
    ({"data.split_fractions": (0.5, 0.4, 0.3)}, "fractions"),
    ({"data.split_fractions": (0.0, 0.5, 0.5)}, "fractions"),
    ({"data.split_fractions": (0.8, 0.2)}, "data.split_fractions"),
    ({"data.split": "speakers"}, "data.split"),
    ({"data.split_options": {"prompt": "disjoint"}}, "prompt"),
    ({"data.split_options": {"prompts": "apart"}}, "prompts"),
    ({"data.split_options": {"test_cohorts": ["a"]}}, "test_cohorts"),
    ({"data.split": "cohort_heldout", "data.split_options": {"test_cohorts": "a"}}, "test_cohorts"),
    ({"data.split": "cohort_heldout", "data.split_options": {"test_cohorts": [3]}}, "test_cohorts"),
    ({"data.language": "klingon"}, "data.language"),
    ({"data.language": ""}, "data.language"),
    ({"translate.target": "zz"}, "translate.target"),
    ({"base.select": {"cohorts": ["a"]}}, "base.select"),
    ({"base.select": {"cohort": []}}, "base.select.cohort"),
    ({"base.select": {"cohort": [1]}}, "base.select.cohort"),
    ({"base.select": {"seconds": ["1"]}}, "base.select"),
    ({"base.timestamps": True}, "base.timestamps"),
    ({"base.word_strings": 5}, "base.word_strings"),
    ({"base.string_words": (3,)}, "base.string_words"),
    ({"base.string_words": (4, 1)}, "base.string_words"),
    ({"base.pack.seconds": (8.0, 4.0)}, "base.pack.seconds"),
    ({"base.pack.seconds": (1.0, 2.0), "base.pack.steps": (1,)}, "base.pack.steps"),
    ({"base.pack.seconds": (1.0,), "base.ctc": 0.3}, "base.ctc"),
    ({"base.pack.seconds": (1.0,), "base.pack.guide": 0.3, "model.sizes": {"mask_padding": False}}, "base.pack.guide"),
    ({"base.pack.seconds": (30.0,), "base.timestamps": True, "base.warp_time": 0.1}, "base.warp_time"),
    ({"base.pack.gap": (2.0, 1.0)}, "base.pack.gap"),
    ({"model.pretrained": "here", "model.vocabulary": "there"}, "model.vocabulary"),
    ({"model.pretrained": "here", "base.ctc": 0.3}, "base.ctc"),
    ({"model.size": "huge"}, "model.size"),
    ({"model.dtype": "float8"}, "model.dtype"),
    ({"model.weights": "int4"}, "model.weights"),
    ({"evaluate.weights": "int4"}, "evaluate.weights"),
    ({"model.buckets": (2.0, 400.0)}, "model.buckets"),
    ({"model.buckets": ()}, "model.buckets"),
    ({"model.buckets": (2.0, 29.0), "model.sizes": {"max_source_positions": 64}}, "model.buckets"),
    ({"model.sizes": {"encoder_layer": 1}}, "encoder_layer"),
    ({"model.sizes": {"encoder_layers": "two"}}, "encoder_layers"),
    ({"model.sizes": {"d_model": 33}}, "d_model"),
    ({"model.sizes": {"d_model": 32, "encoder_heads": 5}}, "encoder_heads"),
    ({"model.sizes": {"hop": 0}}, "hop"),
    ({"model.sizes": {"mask_padding": "yes"}}, "mask_padding"),
    ({"model.vocab_size": 260}, "model.vocab_size"),
    ({"translate.vocab_size": 260}, "translate.vocab_size"),
    ({"translate.width": 10, "translate.heads": 4}, "translate.width"),
    ({"embed.layers": (0, 9)}, "embed.layers"),
    ({"embed.layers": (1, 1)}, "embed.layers"),
    ({"embed.layers": ()}, "embed.layers"),
    ({"embed.signals": ("gradients",)}, "embed.signals"),
    ({"embed.signals": ("gradient",), "embed.gradient.targets": ("nowhere",)}, "embed.gradient.targets"),
    ({"cluster.layers": ("h0",)}, "cluster.layers"),
    ({"cluster.layers": ("auto", "output")}, "cluster.layers"),
    ({"cluster.signal": "gradient"}, "cluster.signal"),
    ({"cluster.hdbscan.min_cluster_size": 1}, "cluster.hdbscan.min_cluster_size"),
    ({"mixture.targets": ("decoder/layers/*/attention",)}, "mixture.targets"),
    ({"mixture.targets": ()}, "mixture.targets"),
    ({"mixture.targets": (("encoder/layers/*/fc1", 0, 1.0),)}, "mixture.targets"),
    ({"mixture.targets": (("encoder/layers/*/fc1", 4),)}, "mixture.targets"),
    ({"mixture.targets": (("nowhere", 4, 1.0),)}, "mixture.targets"),
    ({"mesh.data": -1, "mesh.fsdp": -1}, "mesh"),
    ({"mesh.data": 0}, "mesh"),
    ({"evaluate.systems": ("moo",)}, "evaluate.systems"),
    ({"evaluate.systems": ("full",)}, "evaluate.systems"),
    ({"translate.systems": ("moo",)}, "translate.systems"),
    ({"study.systems": ("moo",)}, "study.systems"),
    ({"study.kinds": ("moo",)}, "study.kinds"),
    ({"adapters.kinds": ("lora", "moo")}, "adapters.kinds"),
    ({"report.spelling": "no/such/file.json"}, "report.spelling"),
    ({"name": ""}, "name"),
    ({"gate": 3}, "gate"),
    ({"cluster.gmm": ("a",)}, "cluster.gmm"),
    ({"data.columns": 3}, "data.columns"),
    ({"variants": {"a": {"gate": {"hiden": 3}}}}, None),  # refused by the command that carries variants out
]
FILES = {
    "syntax error": "def get_config(:\n",
    "raises": "def get_config():\n    raise RuntimeError('no')\n",
    "no get_config": "x = 1\n",
    "gives nothing": "def get_config():\n    pass\n",
    "gives a list": "def get_config():\n    return [1]\n",
    "imports what is not there": "import no_such_module\n",
    "placeholder": "from ml_collections import ConfigDict, config_dict\n\ndef get_config():\n"
    "    return ConfigDict(dict(gate=dict(hidden=config_dict.required_placeholder(int))))\n",
    "key that is a number": "from ml_collections import ConfigDict\n\ndef get_config():\n    return {3: 4}\n",
    "a NUL": "x = '\0'\n",
    "another encoding": "# caf\xe9\n",
}


def run(tries: int, folder: Path, seed: int) -> list[Row]:
    """Rows for refusals, and for jobs that run with what is accepted."""
    drawn = cases(tries, seed)
    rows = []
    for fault, function, todo, seconds in (
        ("broken configs: one line before any work", "refused", drawn, 60.0),
        ("odd configs that are accepted: the whole job runs", "carried_out", range(max(1, tries // 500)), 3000.0),
    ):
        bad, said, tried = [], collections.Counter(), 0
        for case, outcome in isolation.each(f"{__name__}:{function}", todo, seconds=seconds, shared=(folder, seed)):
            tried += 1
            said[outcome.get("said", outcome.get("fault"))] += 1
            if "fault" in outcome:
                bad.append(f"{case}: {outcome['fault']}, {outcome['detail']}")
        note = ", ".join(f"{name} {count}" for name, count in said.most_common())
        rows.append(
            Row(fault, tried, tried - len(bad), note=note + (f"; FAILED: {' | '.join(bad[:10])}" if bad else ""))
        )
    return rows


def cases(count: int, seed: int) -> list[tuple]:
    """(kind, {key: value}, word that the line must have, or None where it is valid), every key of the defaults among
    them when there are enough.
    """
    from moejax.job import config as configs
    from moejax.work.folder import flatten

    rng = random.Random(seed)
    defaults = {key: value for key, value in flatten(configs.defaults().to_dict()).items() if key not in configs.OPEN}
    found = [("together", values, word) for values, word in TOGETHER] + [("file", name, None) for name in FILES]
    for key, default in defaults.items():
        found.append(("typo", {_typo(rng, key): default}, key.rpartition(".")[0]))
        found += [("wrong", {key: value}, key) for value in _wrong(key, default)]
        found.append(("default", {key: default}, None))
    fixed = [case for case in found if case[0] in ("together", "file")]
    others = [case for case in found if case[0] not in ("together", "file")]
    rng.shuffle(others)
    first = {next(iter(values)): ("wrong", values, word) for kind, values, word in reversed(others) if kind == "wrong"}
    order = fixed + list(first.values()) + [case for case in others if case not in first.values()]
    return (order * (1 + count // len(order)))[:count]


def _typo(rng, key):
    *above, last = key.split(".")
    at = rng.randrange(len(last))
    other = rng.choice((last[:at] + last[at + 1 :], last + "s", last.upper(), last[:at] + "_" + last[at:]))
    return ".".join([*above, other if other and other != last else last + "x"])


def _wrong(key, default) -> list:
    """Values that no key of this type may have."""
    containers = [{"a": 1}, object]
    if isinstance(default, bool):
        return [2, "maybe", None, NAN, (True,), *containers]
    if isinstance(default, int):
        return [-5, 2**70, -(2**70), 2.5, NAN, INF, "many", None, True, (1,), *containers]
    if isinstance(default, float) or default is None:  # a key that is None by itself is a number that may be left out
        return [-1e30, 1e30, NAN, INF, -INF, "much", True, (1.0,), *containers, *([] if default is None else [None])]
    if isinstance(default, str):
        return [3, 2.5, None, True, ("a",), "two\nlines", "a\0b", "x" * 5000, *containers]
    entry = default[0] if default else None
    return [
        3,
        "text",
        None,
        (None,),
        (NAN,),
        ((1,),),
        (object,),
        *([("a\0b",)] if isinstance(entry, str) else []),
        *containers,
    ]


def refused(case, folder, seed) -> dict:
    """{"said": kind} of one config. Errors: whatever must not be."""
    from moejax import __main__ as cli

    kind, values, word = case
    file = folder / "config.py"
    if kind == "file":
        file.write_bytes(FILES[values].encode("latin-1"))
        word = "config"
    else:
        _write(file, values)
    out, err = io.StringIO(), io.StringIO()
    argv, command = [], "config"
    flag = random.Random(f"{seed} {case}").random() < 0.3 and kind == "wrong" and _plain(values)
    if flag:  # the same by a flag of the command line
        _write(file, {})
        ((key, value),) = values.items()
        argv = [f"--config.{key}={value}"]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.guarded([command, "--config", str(file), *argv])
    lines = err.getvalue().splitlines()
    valid = word is None
    if valid:
        _must(code == 0 and not lines, f"a valid config is refused: {lines}")
        return {"said": "accepted"}
    _must(code == 1 and len(lines) == 1, f"exit code {code}, {len(lines)} lines: {lines[-1:]} for {values}")
    _must(word in lines[0], f"the line does not name {word!r}: {lines[0][:300]}")
    _must(len(lines[0]) < 3000, f"a line of {len(lines[0])} characters")
    return {"said": f"refused ({kind})"}


def _plain(values) -> bool:
    from moejax.job import config as configs
    from moejax.work.folder import flatten

    ((key, value),) = values.items()
    default = flatten(configs.defaults().to_dict())[key]  # text and lists take whatever stands behind the equals sign
    return isinstance(value, int | float | str) and isinstance(default, int | float)


def _write(file: Path, values: dict) -> None:
    """A config file that sets these keys."""
    lines = ["from ml_collections import ConfigDict", "nan, inf = float('nan'), float('inf')", "", "def get_config():"]
    lines += ["    values = {"]
    lines += [f"        {key!r}: {_code(value)}," for key, value in nest(values).items()]
    file.write_text("\n".join([*lines, "    }", "    return ConfigDict(values)", ""]), encoding="utf-8")


def _code(value) -> str:
    if value is object:
        return "object()"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_code(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, tuple):
        return "(" + "".join(f"{_code(entry)}, " for entry in value) + ")"
    return repr(value)


def _must(holds: bool, otherwise: str):
    if not holds:
        raise AssertionError(otherwise)


# Odd values that are accepted, of keys that the tiny job uses; each job takes half of them.
ODD = {
    "base.batch_size": (1, 7),
    "base.steps": (0, 1),
    "base.warmup": (0, 1000),
    "base.schedule": ("constant", "linear"),
    "base.clip": (0.0,),
    "base.b2": (0.0,),
    "base.dropout": (0.99,),
    "base.smoothing": (0.99,),
    "base.spec": (True,),
    "base.time_masks": (0, 20),
    "base.time_width": (0, 10**6),
    "base.freq_masks": (0, 50),
    "base.freq_width": (0, 10**6),
    "base.warp_time": (0.9,),
    "base.warp_freq": (0.9,),
    "base.level": (100.0,),
    "base.weight_decay": (100.0,),
    "base.learning_rate": (1.0, 1e-6),
    "base.checkpoint_every": (1, 10**9),
    "base.log_every": (1, 10**9),
    "base.ctc": (0.5,),
    "base.repeat": (3,),
    "embed.batch_size": (1, 300),
    "embed.layers": ((-1,), (0,), (1, 0)),
    "embed.pooling": ("mean",),
    "embed.trim_silence": (False,),
    "embed.gradient.batch_size": (1,),
    "embed.gradient.rank": (1,),
    "cluster.level": ("voice", "utterance"),
    "cluster.method": ("gmm", "kmeans", "vmf", "dpgmm", "ward", "hdbscan", "spectral"),
    "cluster.dims": (1, 4096),
    "cluster.variance": (1e-6,),
    "cluster.discriminant": ("none", "cluster"),
    "cluster.discriminant_dims": (1, 4096),
    "cluster.shrinkage": (0.0, 1.0),
    "cluster.refits": (0, 1),
    "cluster.noise": ("drop", "uniform", "nearest"),
    "cluster.match": ("shrink",),
    "cluster.map": ("lda",),
    "cluster.assign": ("sound",),
    "cluster.remove": ((), ("text",)),
    "cluster.gmm.inits": (1,),
    "cluster.gmm.max_clusters": (2, 1000),
    "cluster.auto.max_clusters": (2, 40),
    "cluster.gmm.covariance": ("full", "diag"),
    "gate.num_experts": (1, 2, 9),
    "gate.hidden": (0, 1),
    "gate.steps": (0, 1),
    "gate.targets": ("hard",),
    "gate.temperature": (1e-3, 1e6),
    "gate.zero_start": (True,),
    "gate.class_weights": (False,),
    "gate.batch_size": (1, 1000),
    "mixture.rank": (1, 40),
    "mixture.shared_rank": (0, 40),
    "mixture.alpha": (1e-3, 1e3),
    "mixture.stabilised": (True,),
    "mixture.routing": ("dense",),
    "mixture.top_k": (1, 4096),
    "mixture.expert_dropout": (0.99,),
    "experts.steps": (0, 1),
    "experts.evals": (0, 1, 10_000),
    "experts.dev_utterances": (1, 10**9),
    "joint.keep": ("best",),
    "experts.route": ("label",),
    "experts.part": ("train",),
    "experts.batch_size": (1, 200),
    "joint.steps": (0, 1),
    "joint.balance": (0.0, 1e3),
    "joint.z": (0.0, 10.0),
    "joint.diversity": (0.0, 10.0),
    "joint.gate_scale": (0.0, 100.0),
    "joint.batch_size": (1, 200),
    "adapters.kinds": ((), ("lora",), ("cohort", "full")),
    "adapters.steps": (1,),
    "adapters.full_learning_rate": (1.0,),
    "evaluate.batch_size": (1, 200),
    "evaluate.split": ("dev", "train"),
    "evaluate.speaker_scope": ("all",),
    "evaluate.weights": ("int8", "bfloat16"),
    "model.weights": ("int8",),
    "model.buckets": ((0.3, 1.2), (1.25,)),
    "translate.backends": (("none",), ("offline", "offline_tuned")),
    "translate.steps": (0, 1),
    "translate.batch_size": (1, 200),
    "translate.layers": (3,),
    "report.draws": (1,),
    "report.worst": (0, 10**6),
    "report.typical": ("", "nobody"),
    "report.main": ((),),
    "report.against": ((), ("base",)),
    "report.figures": (False,),
    "report.embed_audio": (True,),
    "data.sample_share": (1e-6, 1.0),
    "data.max_skipped_share": (0.0, 1.0),
    "describe.threads": (1, 64),
    "describe.shown_groups": (1,),
    "data.split": ("speaker_disjoint", "prompt_disjoint"),
    "data.split_fractions": ((0.4, 0.3, 0.3),),
    "seed": (2**31 - 1,),
    "data.seed": (2**31 - 1,),
    "runtime.audio_cache_bytes": (0,),
    "runtime.workers": (1,),
}


def carried_out(number, folder, seed) -> dict:
    """{"said": "ran"} of one whole job with a drawn half of `ODD`, or of what refused it in a line of its own."""
    import moejax
    from moejax import __main__ as cli

    rng = random.Random(f"{seed} {number}")
    short = {f"{stage}.steps": 2 for stage in ("base", "gate", "experts", "joint", "translate")}
    odd = {key: rng.choice(values) for key, values in ODD.items() if rng.random() < 0.5}
    corpus = folder / "corpus"
    if not corpus.exists():
        tiny_job.write_corpus(corpus, per_speaker=12)
    with tiny_job.quick():
        try:
            moejax.run(tiny_job.config(corpus, **{**short, **odd}), folder / "W", quiet=True)
            return {"said": "ran"}
        except Exception as error:  # a refusal that only the data could tell is one line of ours
            if not cli.foreseen(error):
                return {"fault": "error", "detail": f"{type(error).__name__}: {str(error)[:200]} with {odd}"}
            return {"said": "refused by the data"}
        finally:
            shutil.rmtree(folder / "W", ignore_errors=True)
