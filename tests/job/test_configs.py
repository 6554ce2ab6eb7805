"""Every shipped config and each of its variants resolves; the one for clusters fits where its plan says."""

import ast
import math
import re
from pathlib import Path

import pytest

from moejax.job import config as configs
from moejax.job import graph, plan, stages, study
from moejax.nn import functional, whisper
from moejax.runtime import sharding

ROOT = Path(__file__).parent.parent.parent
FILES = sorted((ROOT / "configs").glob("*.py"))
LARGE = "configs/whisper_large_v2.py"


def variants(file) -> list[str]:
    """The variants that a config says it knows when asked for another."""
    with pytest.raises(ValueError, match="known:") as error:
        configs.load(f"{file}:no-such-variant")
    assert "\n" not in str(error.value)
    return [name.strip() for name in str(error.value).split("known:")[1].split(",")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_variant_resolves(file):
    plain = configs.load(str(file))
    assert plain.is_locked and plain.name != configs.defaults().name
    jobs = {}  # the first of each base: what its other variants are compared to
    for variant in variants(file):
        config = configs.load(f"{file}:{variant}")
        assert config.to_dict() != plain.to_dict()
        # Nor the same folder of runs/ (`moejax.evaluate`).
        assert config.name != plain.name and config.name.startswith(plain.name)
        # A variant makes the same job smaller: it has the same systems to compare.
        whole = plain if bool(config.model.pretrained) == bool(plain.model.pretrained) else jobs.setdefault(0, config)
        assert (config.adapters.kinds, config.data.source) == (whole.adapters.kinds, plain.data.source)
        assert config.joint.steps <= whole.joint.steps


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_config_opens_with_its_command_and_imports_nothing_of_ours(file):
    tree = ast.parse(file.read_text())
    doc = ast.get_docstring(tree)
    assert re.search(rf"^    \S.*configs/{file.name}", doc, re.M) or f"({file.parent.name}" in doc
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules == {"ml_collections"} and not any(isinstance(node, ast.Import) for node in ast.walk(tree))


def test_every_section_has_one_home_and_is_read_by_a_stage():
    read = {section.split(".")[0] for stage in graph.STAGES.values() for section in stage.reads}
    sections = {name for name, node in stages.SECTIONS.items() if name not in stages.sections.RUN}
    many = {"study", "variants", "tune"}  # read by `job/study.py`, which hands other configs to the stages
    assert sections - read == {"mesh", "runtime", "export"} | many, "one that no stage reads never makes one run again"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_row_of_ablations_resolves_and_trains_as_long_as_the_mixture(file):
    config = configs.load(str(file))
    for name in config.variants:
        varied = study.varied(config, name)
        assert study._changes(config, varied) or varied.evaluate.systems != ("moe",)
        assert varied.experts.steps + varied.joint.steps == config.experts.steps + config.joint.steps


def test_resolving_twice_changes_nothing():
    once = configs.load(LARGE)
    assert configs.resolve(once).to_dict() == once.to_dict()


def test_large_v2_has_the_published_number_of_parameters():
    text = plan.plan(configs.load(LARGE), 1)
    assert "1,543,304,960 parameters" in text
    config, origin = plan.network(configs.load(LARGE))
    assert config == whisper.SIZES["large-v2"] and "large-v2" in origin


def test_plan_lists_what_trains():
    cfg = configs.load(LARGE)
    params = plan.abstract(cfg, plan.network(cfg)[0])
    flat = functional.paths(params["expert"])
    # q and v of two attentions, fc1 and fc2, in 32 decoder layers; A and B each.
    assert len(flat) == 32 * 6 * 2 and not any(path.startswith("encoder") for path in flat)
    assert f"joint trains {len(flat) + 4} arrays" in plan.plan(cfg, 1)
    D, F, E, R = 1280, 5120, 10, 8
    assert functional.count(params["expert"]) == 32 * E * R * (4 * 2 * D + 2 * (D + F))
    assert functional.count(params["gate"]) == D * 512 + 512 + 512 * E + E


CUTS = ({"data": 8}, {"fsdp": 8}, {"data": 2, "fsdp": 2, "model": 2}, {"expert": 2, "fsdp": 4})


@pytest.mark.parametrize("cuts", CUTS, ids=str)
def test_shards_are_whole_and_cover_the_arrays(cuts):
    cfg = configs.load(LARGE)
    mesh = sharding.pretend_mesh(cuts, 8)
    params = plan.abstract(cfg, plan.network(cfg)[0])
    for path, leaf in functional.paths(params).items():
        part = plan.shard(path, leaf.shape, mesh)
        spec = [axis for axis in sharding.param_spec(path, leaf.shape, mesh) if axis]
        assert math.prod(mesh.shape[axis] for axis in spec) * math.prod(part) == leaf.size, path
    whole = plan.per_device(params, sharding.pretend_mesh({"data": 8}, 8), ("backbone",), 2)
    cut = plan.per_device(params, mesh, ("backbone",), 2)
    share = mesh.shape["fsdp"] * mesh.shape["model"]
    assert whole / share <= cut <= whole / mesh.shape["fsdp"] * 1.01 + 2**22


def test_pretend_mesh_is_the_real_one():
    real = sharding.make_mesh({"data": -1, "expert": 2})
    assert sharding.pretend_mesh({"data": -1, "expert": 2}, 8).shape == real.shape


def test_more_devices_hold_less_each():
    cfg = configs.load(LARGE)

    def gib(devices, name, **mesh):
        with cfg.unlocked():
            cfg.mesh.update({"data": 1, "fsdp": 1, "expert": 1, "model": 1} | mesh)
        line = next(line for line in plan.plan(cfg, devices).splitlines() if line.strip().startswith(name))
        return float(re.search(r"([\d.]+) GiB", line)[1])

    assert gib(8, "base", data=8) == gib(1, "base")
    assert gib(8, "base", fsdp=8) < 0.14 * gib(1, "base")
    assert gib(2, "optimizer", expert=2) < 0.51 * gib(1, "optimizer")
    assert abs(gib(4, "activations, decoder", data=4) - gib(1, "activations, decoder") / 4) < 0.01


@pytest.mark.parametrize(
    ("devices", "change", "words"),
    [
        (0, {}, "at least 1"),
        (8, {"mesh.fsdp": 3}, "does not fit 8 devices"),
        (3, {}, "batch_size=32 does not divide by data \\* fsdp = 3"),
        (1, {"mixture.targets": ("decoder/layers/*/attention",)}, "matches no layer; the layers are"),
    ],
)
def test_plan_says_what_does_not_fit(devices, change, words):
    cfg = configs.load(LARGE)
    with cfg.unlocked():
        cfg.update_from_flattened_dict(change)
    with pytest.raises(ValueError, match=words) as error:
        plan.plan(cfg, devices)
    assert "\n" not in str(error.value)


def test_the_plan_knows_of_the_stage_st_where_it_trains():
    plain, teaching = (plan.plan(configs.load(f"{ROOT / 'configs/quickstart.py'}{more}")) for more in ("", ":st"))
    assert "joint, st" in teaching and "joint, st" not in plain
    rows = {text: re.search(r"audio and mel .* (\d+) rows", text).group(1) for text in (plain, teaching)}
    assert rows == {plain: "16", teaching: "32"}, "the larger of the two batches is what has to fit"
