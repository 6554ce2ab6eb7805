"""COMET by the command of unbabel-comet itself, on a tiny model of random weights that is made here.

Skipped where there is no such command: MOEJAX_TEST_COMET names it (it wants an environment of its own).
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from moejax.errors import BadValue
from moejax.score import comet

COMMAND = shutil.which(os.environ.get("MOEJAX_TEST_COMET", comet.COMMAND))
pytestmark = pytest.mark.skipif(COMMAND is None, reason="no comet-score; MOEJAX_TEST_COMET names one")

MAKE = """
import pathlib, string, sys, torch, yaml
import pytorch_lightning
from comet.models import RegressionMetric
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizerFast

root = pathlib.Path(sys.argv[1])
letters = string.ascii_lowercase
words = ["<s>", "<pad>", "</s>", "<unk>", *("\\u2581" + one for one in letters), *letters, "<mask>"]
tokenizer = Tokenizer(models.Unigram([(word, -i / 10) for i, word in enumerate(words)], unk_id=3))
tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
tokenizer = XLMRobertaTokenizerFast(tokenizer_object=tokenizer)
tokenizer.save_pretrained(root / "encoder")
torch.manual_seed(0)
sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
config = XLMRobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=130, **sizes)
XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(root / "encoder")
said = dict(encoder_model="XLM-RoBERTa", pretrained_model=str(root / "encoder"), hidden_sizes=[16])
said["local_files_only"] = True
model = RegressionMetric(**said, load_pretrained_weights=False)
(root / "checkpoints").mkdir()
kept = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
torch.save(kept | {"pytorch-lightning_version": pytorch_lightning.__version__}, root / "checkpoints/model.ckpt")
(root / "hparams.yaml").write_text(yaml.safe_dump(said | {"class_identifier": "regression_metric"}))
"""
SPOKEN = ["the dog runs home", "the dog", "two cats"]
REFERENCES = ["der hund rennt heim", "der hund", "zwei katzen"]
SYSTEMS = {"moe.offline": ["der hund rennt", "der hund", "katzen"], "a/b.deepl": ["das haus", "ein\nhund", ""]}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    root = tmp_path_factory.mktemp("comet")
    python = Path(COMMAND or "").with_name("python")
    subprocess.run([python, "-c", MAKE, root], check=True, capture_output=True)
    return root / "checkpoints" / "model.ckpt"


def test_scores_are_those_that_the_command_prints(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(checkpoint.parent)
    beats = []
    monkeypatch.setattr(comet, "EVERY", 0.2)
    found = comet.scores(
        SYSTEMS, REFERENCES, SPOKEN, model="model.ckpt", command=str(COMMAND), alive=lambda: beats.append(1)
    )
    assert list(found) == list(SYSTEMS) and beats
    for name, texts in SYSTEMS.items():
        for file, lines in (("s", SPOKEN), ("r", REFERENCES), ("t", texts)):
            (tmp_path / file).write_text("".join(line.replace("\n", " ") + "\n" for line in lines))
        arguments = ["-s", "s", "-r", "r", "-t", "t", "--model", checkpoint, "--gpus", "0", "--quiet", "--only_system"]
        said = subprocess.run([COMMAND, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        assert f"t\tscore: {found[name]:.4f}" in said
    assert len({round(score, 4) for score in found.values()}) == 2


def test_a_checkpoint_that_is_none_is_refused_in_one_line(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"no model")
    with pytest.raises(BadValue, match="comet-score ended with code 1 and said: ") as caught:
        comet.scores(SYSTEMS, REFERENCES, SPOKEN, model=str(tmp_path / "model.ckpt"), command=str(COMMAND))
    assert "\n" not in str(caught.value)
