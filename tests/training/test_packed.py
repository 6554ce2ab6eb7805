"""The base stage on windows: it trains in phases, resumes, writes a folder that says what was learnt, and refuses what
cannot be.
"""

import base64
import json
import shutil

import numpy as np
import pytest
import tiny_job

import moejax
from moejax.convert import hf_whisper
from moejax.job import config as configs
from moejax.nn import functional
from moejax.runtime.files import read_json
from moejax.text.tokenizer import Tokenizer
from moejax.training import packed

pytestmark = pytest.mark.job

SIZES = dict(
    d_model=16,
    encoder_layers=1,
    decoder_layers=1,
    encoder_heads=2,
    decoder_heads=2,
    encoder_ffn=32,
    decoder_ffn=32,
    num_mel_bins=20,
    max_source_positions=150,
    max_target_positions=48,
    hop=160,
    mask_padding=False,
)
PACK = dict(
    model__sizes=SIZES,
    model__vocabulary="vocabulary",
    model__buckets=(3.0,),
    base__timestamps=True,
    base__steps=2,
    base__batch_size=4,
    base__pack__seconds=(1.2, 3.0),
    base__pack__steps=(3, 2),
    base__pack__prompt_tokens=(0, 8),
    base__pack__batch_sizes=(4, 2),
    base__pack__learning_rates=(1e-2, 1e-3),
)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A folder with corpus/, a vocabulary in the published form (bytes alone), and a finished base in W."""
    folder = tmp_path_factory.mktemp("packed")
    tiny_job.write_corpus(folder / "corpus", per_speaker=6)
    (folder / "vocabulary").mkdir()
    ranks = [base64.b64encode(bytes([byte])).decode() for byte in range(256)]
    lines = "".join(f"{token} {rank}\n" for rank, token in enumerate(ranks))
    (folder / "vocabulary" / "multilingual.tiktoken").write_text(lines)
    train(folder)
    return folder


def train(folder, **changes):
    with pytest.MonkeyPatch.context() as patch, tiny_job.quick():
        patch.chdir(folder)
        moejax.run(tiny_job.config(**{**PACK, **changes}), "W", stages="base", quiet=True)


def weights(folder):
    return functional.paths(hf_whisper.load(folder / "W" / "base" / "model")[1])


def test_every_phase_takes_its_steps(job):
    for phase, steps in (("1.2s", 3), ("3s", 2)):
        records = tiny_job.records(job / "W" / "base" / phase / "metrics.jsonl")
        assert [record["step"] for record in records] == list(range(1, steps + 1))
        assert all(np.isfinite(record["loss"]) for record in records)


def test_the_folder_has_the_published_vocabulary_with_its_times(job):
    folder = job / "W" / "base" / "model"
    config, _ = hf_whisper.load(folder)
    tokenizer = Tokenizer.from_hf_folder(folder)
    assert config.vocab_size == tokenizer.vocab_size == 256 + 2 + 99 + 6 + 1501
    assert not config.mask_padding and config.hop == 160
    assert tokenizer.decode([tokenizer.timestamp_begin + 1500], skip_special=False) == "<|30.00|>"
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["no_timestamps_token_id"] == tokenizer.no_timestamps


def test_a_phase_that_is_done_is_not_trained_again(job, tmp_path):
    before = weights(job)
    again = tiny_job.copy(job, tmp_path)
    (again / "W" / "base" / "done.json").unlink()
    shutil.rmtree(again / "W" / "base" / "model")
    train(again)
    for path, array in weights(again).items():
        np.testing.assert_array_equal(array, before[path], err_msg=path)
    assert len(tiny_job.records(again / "W" / "base" / "3s" / "metrics.jsonl")) == 2


def test_another_share_trains_again(job, tmp_path):
    again = tiny_job.copy(job, tmp_path)
    train(again, base__pack__plain=0.9)
    assert "base.pack.plain 0.2 -> 0.9" in (again / "W" / "log.txt").read_text()
    assert any((array != weights(job)[path]).any() for path, array in weights(again).items())
    assert read_json(again / "W" / "base" / "done.json")["summary"]["parameters"] > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(base__pack__seconds=()), "base.timestamps needs windows"),
        (dict(base__pack__seconds=(3.0, 1.2)), "ascending"),
        (dict(base__pack__seconds=(1.2, 40.0)), "'base.pack.seconds' is 40.0"),
        (dict(base__pack__seconds=(1.2, 6.0)), "the model hears 3.0 s"),
        (dict(base__pack__seconds=(0.05, 3.0)), "'base.pack.seconds' is 0.05"),
        (dict(base__pack__seconds=(0.4, 0.5)), "the training part has one of"),
        (dict(base__pack__steps=(1, 2, 3)), "base.pack.steps has 3 entries for 2 window lengths"),
        (dict(base__pack__cut=2.0), "'base.pack.cut' is 2.0"),
        (dict(base__ctc=0.3), "base.ctc does not go with base.pack"),
        (dict(base__short_steps=5), "base.short_steps does not go with base.pack"),
        (dict(base__warp_time=0.1), "warp_time would falsify the times"),
        (dict(model__sizes={**SIZES, "mask_padding": True}), "model.sizes.mask_padding=False"),
        (dict(base__pack__guide=1.0, base__timestamps=False), "base.pack.guide needs"),
        (dict(model__vocabulary="nowhere"), "nowhere: no vocabulary; multilingual.tiktoken"),
        (dict(model__pretrained="W/base/model"), "model.vocabulary is for a base from scratch"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(job, tmp_path, change, words):
    again = tiny_job.copy(job, tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as error:
        train(again, **change)
    assert "\n" not in str(error.value)


def test_phases_take_the_section_where_the_pack_says_nothing():
    cfg = configs.defaults()
    cfg.base.steps, cfg.base.pack.seconds, cfg.base.pack.steps = 7, (3.0, 30.0), (9, 8)
    short, long = packed.phases(cfg.base)
    assert (short.name, long.name, short.steps, long.steps) == ("3s", "30s", 9, 8)
    assert short.batch_size == long.batch_size == cfg.base.batch_size and long.prompt_tokens == 223
