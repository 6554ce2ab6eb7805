"""`moejax plan --audio_llm`: counts as published, bytes that add up, devices that share them."""

import re
from pathlib import Path

import pytest
import salmonn_folder

from moejax.__main__ import guarded
from moejax.errors import BadValue
from moejax.job import audio_plan
from moejax.job import config as configs
from moejax.job.audio_plan import Asked
from moejax.nn import functional
from moejax.tasks import answers

CONFIG = str(Path(__file__).parents[2] / "configs" / "salmonn_7b.py")


def gib(text, name):
    return float(re.search(rf"  {name} +([\d.]+) GiB", text)[1])


def test_one_four_and_eight_devices(capsys):
    found = {}
    for devices in (1, 4, 8):
        argv = ["plan", "--audio_llm", "13b", "--devices", str(devices)]
        assert guarded(argv) == 0
        found[devices] = capsys.readouterr().out
        assert "88 vectors of 30 s" in found[devices] and re.search(r"what learns +33,332,992\n", found[devices])
    weights = {devices: gib(text, "frozen weights") for devices, text in found.items()}
    assert weights[1] == pytest.approx(2 * 13_742_960_624 / 2**30, rel=1e-3)  # with the encoder's fixed positions
    for devices in (4, 8):
        assert weights[devices] == pytest.approx(weights[1] / devices, rel=0.01)
    parts = ("frozen weights", "connector and experts", "their gradient", "optimizer state", "activations")
    assert gib(found[1], "training step, together") == pytest.approx(sum(gib(found[1], p) for p in parts), abs=0.01)
    assert gib(found[1], "optimizer state") == pytest.approx(8 * 33_332_992 / 2**30, abs=0.001)


def test_experts_int8_and_tensor_parallel():
    plain, four = audio_plan.plan(Asked("7b")), audio_plan.plan(Asked("7b", experts=4))
    assert re.search(r"what learns +30,186,240\n", plain)
    assert re.search(rf"what learns +{30_186_240 + 3 * 4_194_304:,}\n", four)
    small = audio_plan.plan(Asked("7b", weights="int8"))
    assert 0.5 < gib(small, "frozen weights") / gib(plain, "frozen weights") < 0.56
    cut = audio_plan.plan(Asked("7b", axis="model"), 4)
    assert gib(cut, "frozen weights") < 0.4 * gib(plain, "frozen weights")  # embedding and encoder's norms stay whole


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"size": "70b"}, "unknown size '70b' of an audio LLM; known: 7b, 13b"),
        ({"axis": "expert"}, "unknown axis 'expert'"),
        ({"weights": "int4"}, "unknown format of weights 'int4'"),
        ({"experts": 0}, "one LoRA or more"),
    ],
)
def test_what_cannot_be_planned(options, match):
    with pytest.raises(BadValue, match=match):
        Asked(**options)


def count(text, name):
    return int(re.search(rf"  {name} +([\d,]+)", text)[1].replace(",", ""))


def test_a_config_with_the_stage_is_planned_with_its_mixture(capsys):
    assert guarded(["plan", "--config", CONFIG, "--devices", "4"]) == 0
    text = capsys.readouterr().out.split("salmonn_moe: ")[1]
    assert text.startswith("a language model of d_model 4096, 32 layers, 4 LoRAs of rank 8, 88 vectors of 30 s\n")
    assert "whisper, llama, BEATs of salmonn not there: sizes as published with 7b" in text
    assert count(text, "experts on q and v") == 4 * 4_194_304 and count(text, "connector") == 25_991_936
    assert count(text, "what learns") == 25_991_936 + 4 * 4_194_304 + count(text, "gate")
    assert gib(text, "frozen weights") == pytest.approx(gib(text, "weights that answer") / 4, rel=0.05)
    assert "estimate: 2 rows of 152 tokens" in text  # 8 over 4 devices
    parts = ("frozen weights", "connector and experts", "their gradient", "optimizer state", "activations")
    assert gib(text, "training step, together") == pytest.approx(sum(gib(text, part) for part in parts), abs=0.01)


def test_sizes_are_those_of_the_folder(tmp_path):
    cfg = configs.load(CONFIG)
    cfg.salmonn.folder = str(salmonn_folder.write(tmp_path))
    cfg.salmonn.systems = cfg.evaluate.systems = ("salmonn",)
    text = audio_plan.of_config(configs.resolve(cfg))
    params = answers.parts(tmp_path).params
    assert count(text, "language model") == functional.count(params["backbone"]["decoder"])
    assert count(text, "BEATs") == functional.count(params["backbone"]["sounds"])
    assert count(text, "experts on q and v") == functional.count(params["expert"])
    assert "not there" not in text and "training step" not in text and gib(text, "answering, together") >= 0
    cfg.salmonn.systems = cfg.evaluate.systems = ("salmonn_lora",)
    cfg.mesh.fsdp = 3
    with pytest.raises(BadValue, match=r"salmonn\.batch_size=8 does not divide by data \* fsdp = 3"):
        audio_plan.of_config(configs.resolve(cfg), 3)
