"""Keys of other trainers: each has a line, each line leads to a key that there is, values become what ours takes."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from moejax import __main__ as cli
from moejax.errors import BadValue, NotThere
from moejax.job import config as configs
from moejax.job import trainer_keys
from moejax.job.stages import FIELDS

ROOT = Path(__file__).parent.parent.parent
TABLE = trainer_keys.table()
# The sections that a torch script's YAML has, each with one of its keys: none of them may be forgotten as a whole.
YAML = (
    *("model_type", "global_config.d_ff", "encoder.use_scalenorm", "decoder.num_classes", "training.max_steps"),
    *("training.optimizer.amsgrad", "training.scheduler.num_cycles", "training.gradient_clipping"),
    *(
        "training.amp_loss_scale",
        "training.fixed_projection",
        "training.loss.focal_gamma",
        "training.validation.interval",
    ),
    *("training.early_stopping.restore_best_weights", "training.checkpoint.snapshot_features"),
    *("training.distributed.gradient_as_bucket_view", "training.logging.wandb_entity"),
    *("training.performance.batch_shim", "training.callbacks", "training.profiling", "eval_knobs.sliding_window"),
    "tuning.search_space",
)


@pytest.mark.parametrize("name", TABLE)
def test_every_line_leads_somewhere(name):
    key = TABLE[name]
    assert key.kind in trainer_keys.KINDS and (key.kind == "ours") == bool(key.ours)
    if key.kind == "ours":
        assert key.conversion in trainer_keys.CONVERSIONS
        for ours in key.ours:
            places = [ours.replace("@", section) for section in trainer_keys.sections()]
            assert any(map(trainer_keys._there, places)), f"no section has {ours}"
    else:
        assert not key.conversion and (key.said or key.kind == "absent")


def test_every_argument_of_the_installed_transformers_has_a_line():
    folder, found = Path(transformers.__file__).parent, set()
    for file in ("training_args.py", "training_args_seq2seq.py"):  # read, not imported: that wants torch
        for node in ast.parse((folder / file).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name.endswith("TrainingArguments"):
                found |= {line.target.id for line in node.body if isinstance(line, ast.AnnAssign)}
    assert len(found) > 80 and sorted(found - set(TABLE)) == []


def test_the_yaml_of_torch_scripts_is_there_and_the_page_is_current():
    assert set(YAML) <= set(TABLE) and sum("." in name for name in TABLE) > 90
    page = (ROOT / "docs/trainer_keys.md").read_text(encoding="utf-8")
    said = subprocess.run([sys.executable, "-m", "moejax.job.trainer_keys"], cwd=ROOT, capture_output=True, text=True)
    assert page == said.stdout == trainer_keys.markdown()


def test_arguments_become_overrides_that_a_config_takes(tmp_path, capsys):
    given = {
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 4,
        "learning_rate": 1e-5,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 500,
        "max_steps": 4000,
        "eval_strategy": "steps",
        "eval_steps": 1000,
        "bf16": True,
        "adam_beta2": 0.98,
        "metric_for_best_model": "eval_wer",
        "load_best_model_at_end": True,
        "ddp_static_graph": True,
        "fp16": False,
        "hub_model_id": None,
    }
    (tmp_path / "args.json").write_text(json.dumps(given))
    assert cli.guarded(["config", "--from", str(tmp_path / "args.json"), "--section", "adapters"]) == 0
    out, err = capsys.readouterr()
    wanted = {"batch_size": 32, "learning_rate": 1e-5, "schedule": "constant", "warmup": 500, "steps": 4000, "evals": 4}
    wanted |= {"b2": 0.98, "best": "wer", "keep": "best"}
    assert dict(line.removeprefix("--config.").split("=") for line in out.splitlines()) == {
        **{f"adapters.{key}": str(value) for key, value in wanted.items()},
        "model.dtype": "bfloat16",
    }
    lines = err.splitlines()
    assert len(lines) == 2 and "gradient_accumulation_steps=4: has no meaning in JAX" in lines[0]
    assert "ddp_static_graph=True: has no meaning in JAX: of torch's DDP" in lines[1]
    overrides = out.split()
    assert cli.guarded(["config", "--config", str(ROOT / "configs/quickstart.py"), *overrides]) == 0
    assert "steps: 4000" in capsys.readouterr().out


def test_a_yaml_of_a_torch_script(tmp_path):
    text = """
    global_config: {d_ff: 4, batch_size: 16}
    encoder: {d_model: 128, num_layers: 3, attention_type: linear}
    training:
      epochs: 20
      batch_size: 16
      mixed_precision: true
      gradient_clipping: null
      optimizer: {type: adamw, lr: 0.001, betas: [0.9, 0.98]}
      distributed: {backend: nccl}
    """
    (tmp_path / "run.yaml").write_text(text)
    found = trainer_keys.read(tmp_path / "run.yaml")
    assert found.values == {
        "model.sizes.encoder_ffn": 512,
        "model.sizes.decoder_ffn": 512,
        "base.batch_size": 16,
        "model.sizes.d_model": 128,
        "model.sizes.encoder_layers": 3,
        "model.dtype": "bfloat16",
        "base.learning_rate": 0.001,
        "base.b2": 0.98,
    }
    said = "\n".join(found.notes)
    assert (
        "training.epochs=20: the section base has no key base.epochs: sections that train on speech count steps" in said
    )
    assert "encoder.attention_type='linear': moejax has nothing of the kind" in said and "nccl" in said
    assert trainer_keys.converted({"training": {"epochs": 20}}, "folds").values == {"folds.epochs": 20}
    changed = {key.removeprefix("base."): value for key, value in found.values.items() if key.startswith("base.")}
    assert configs.changed(configs.resolve(configs.defaults()), {"base": changed}).base.learning_rate == 0.001


@pytest.mark.parametrize(
    ("given", "section", "words"),
    [
        ({"lerning_rate": 1e-3}, "base", "no trainer has a key 'lerning_rate'; did you mean learning_rate"),
        ({"learning_rate": 7.0}, "base", "config key 'base.learning_rate' is 7.0"),
        ({"learning_rate": "fast"}, "base", "config key 'base.learning_rate' is 'fast'"),
        ({"seed": 1}, "cluster", "no training section 'cluster'; known: base, "),
        ({"global_config": {"batch_size": 8}, "training": {"batch_size": 4}}, "base", "makes base.batch_size 4, and"),
    ],
)
def test_what_no_key_can_be_is_refused_in_one_line(given, section, words):
    with pytest.raises(BadValue, match=words) as error:
        trainer_keys.converted(given, section)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lr_scheduler_type": "polynomial"}, "schedules here are cosine"),
        ({"warmup_steps": 0.1}, "a share of the training"),
        ({"eval_steps": 100}, "max_steps is not there"),
        ({"metric_for_best_model": "bleu"}, "judged by loss or wer"),
        ({"training": {"optimizer": {"betas": 0.9}}}, "betas=0.9"),
    ],
)
def test_values_that_there_are_not_are_named(given, words):
    found = trainer_keys.converted(given, "adapters")
    assert not found.values and len(found.notes) == 1 and words in found.notes[0]


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(NotThere, match="no file"):
        trainer_keys.read(tmp_path / "none.yaml")
    for name, text in (("a.json", "{"), ("b.yaml", "a: [1"), ("c.yaml", "- 1")):
        (tmp_path / name).write_text(text)
        with pytest.raises(BadValue, match="neither YAML nor JSON|holds a list"):
            trainer_keys.read(tmp_path / name)
    assert FIELDS["base.learning_rate"].default == 3e-3  # nothing of this touched what there is
