"""A system's name is looked up in one registry: a new baseline is one entry there, and nothing else knows of it."""

import contextlib
import csv
import dataclasses

import jax
import pytest
import tiny_job

import moejax
from moejax.__main__ import guarded
from moejax.job.opening import open_context
from moejax.systems import registry
from moejax.systems.system import ROLES, Kind, System

pytestmark = pytest.mark.job


def exaggerated():
    """The baseline of this test: `lora` with twenty times its update, trained by nobody."""
    plain = registry.KINDS[1]

    def known(work):
        return [System("lora_loud", "adapter", "adapters", meaning="lora, its update twenty times")]

    def opened(context, system):
        lora = plain.open(context, next(s for s in plain.known(context.work) if s.name == "lora"))
        flat = jax.tree_util.tree_map_with_path(
            lambda path, leaf: 20.0 * leaf if path[-1].key == "B" else leaf, lora.network.params["expert"]
        )
        network = dataclasses.replace(lora.network, params={**lora.network.params, "expert": flat})
        return system.opened(network, lora.trainable)

    return Kind(known, opened, names=("lora_loud",))


@pytest.fixture
def job(tmp_path_factory, tmp_path):
    copy = tiny_job.copy(tiny_job.shared(tmp_path_factory), tmp_path)
    with contextlib.chdir(copy), tiny_job.quick():
        yield copy


def test_a_new_baseline_is_one_entry(job, monkeypatch, capsys):
    monkeypatch.setattr(registry, "KINDS", [*registry.KINDS, exaggerated()])
    moejax.run(tiny_job.config(evaluate__systems=("base", "lora", "lora_loud")), "W", quiet=True)
    with open("W/report/table.csv", encoding="utf-8", newline="") as file:
        rows = {row["system"]: row for row in csv.DictReader(file) if row["group"] == "all"}
    assert list(rows) == ["base", "lora", "lora_loud"]
    said = {name: tiny_job.records(job / f"W/evaluate/{name}.jsonl") for name in ("lora", "lora_loud")}
    assert [r["hypothesis"] for r in said["lora"]] != [r["hypothesis"] for r in said["lora_loud"]]
    assert "lora_loud" in (job / "W/report/report.html").read_text(encoding="utf-8")
    table = moejax.evaluate("W", systems=["lora_loud"])
    assert float(rows["lora_loud"]["wer"]) == pytest.approx(table.row("lora_loud")["wer"])
    capsys.readouterr()
    wave = next((job / "corpus" / "wav").glob("*.wav"))
    assert guarded(["transcribe", str(wave), "--model", "W", "--system", "lora_loud"]) == 0
    assert capsys.readouterr().out.strip() == moejax.load("W", system="lora_loud").transcribe(wave).text
    assert guarded(["export", "--workdir", "W", "--to", "peft", "--system", "lora_loud", "--output", "out"]) == 0


def test_every_record_says_what_consumers_ask(job):
    context = open_context(job / "W")
    known = registry.known(context.work)
    assert next(iter(known)) == "base" and registry.best(context.work).name == "moe"
    for name, system in known.items():
        assert system.name == name and system.role in ROLES
        assert registry.named(name) in registry.KINDS
        assert (system.role == "control") == bool(system.of)
    opened = registry.open_system(context, "lora_total")
    assert opened.trainable == opened.network.count("expert") // opened.network.mixture.num_experts > 0


def test_names_that_nobody_has(job):
    with pytest.raises(KeyError, match="no system 'lora_zoe' in this workdir; it has base, lora"):
        registry.find(open_context(job / "W").work, "lora_zoe")
    with pytest.raises(ValueError, match="config key 'evaluate.systems' has 'mow'; known: base, .*moe"):
        registry.named("mow", "evaluate.systems")


def test_what_has_a_system_trained():
    asked = registry.asked(("base", "lora", "lora_merged", "hyper_AB_enrolled", "moe", "moe_oracle"))
    assert asked == {"adapters.kinds": ("lora", "cohort"), "hyper.systems": ("hyper_AB",)}
