"""The whole job on tones: what it leaves, when it runs again, and that the finished model does what was evaluated."""

import csv
import io
import json
import math

import jax
import numpy as np
import pytest
import soundfile
import tiny_job

import moejax
from moejax.job import graph
from moejax.job.opening import open_context
from moejax.nn import functional
from moejax.ops import losses
from moejax.ops.audio import log_mel
from moejax.runtime.files import read_json
from moejax.systems import controls
from moejax.tasks import asr
from moejax.train.params_file import load_params
from moejax.work.folder import Work, digest

pytestmark = pytest.mark.job

PLAIN = ("base", "lora", "lora_total", "lora_clear", "lora_breathy", "lora_merged")
MIXED = ("moe_frozen", "moe", *controls.CONTROLS)
SPEAKERS = [name for names in tiny_job.SPEAKERS.values() for name in names]


@pytest.fixture(autouse=True)
def quick():
    with tiny_job.quick():
        yield


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return tiny_job.shared(tmp_path_factory)


@pytest.fixture(scope="module")
def work(job):
    return Work(job / "W", quiet=True)


@pytest.fixture(scope="module")
def tested(work):
    """Audio and records of `moe` for every test utterance."""
    context = open_context(work.root)
    rows = context.corpus.rows("test")
    records = tiny_job.records(work.path("evaluate", "moe.jsonl"))
    assert [r["id"] for r in records] == list(context.corpus.manifest.column("id")[rows])
    return [context.corpus.audio[int(row)] for row in rows], records


@pytest.fixture(scope="module")
def recognizer(work):
    return moejax.load(work.root)


def rerun(job, monkeypatch, **changes):
    """{stage: what the log says of it} of running the job again."""
    monkeypatch.chdir(job)
    log = job / "W" / "log.txt"
    before = len(log.read_text())
    moejax.run(tiny_job.config(**changes), "W", quiet=True)
    said = {}
    for line in log.read_text()[before:].splitlines():
        if "[" in line and (name := line.split("[")[1].split("]")[0]) in tiny_job.STAGES:
            said.setdefault(name, line.split("] ", 1)[1])
    return said


def test_every_file_of_the_contract_stands(work):
    for stage in tiny_job.STAGES:
        done = read_json(work.path(stage, "done.json"))
        assert done["digest"] == digest(done["inputs"]) and done["seconds"] >= 0
    files = ["config.json", "describe/manifest.parquet", "embed/embeddings.npz", "cluster/clusters.npz"]
    files += ["gate/gate.safetensors", "base/model/model.safetensors", "adapters/index.json", "evaluate/systems.json"]
    files += [f"{stage}/metrics.jsonl" for stage in ("base", "gate", "experts", "joint", "adapters/lora")]
    files += [f"{stage}/params.safetensors" for stage in ("experts", "joint", "adapters/cohort", "adapters/speaker")]
    files += [f"report/{name}" for name in ("table.md", "table.csv", "report.html", "summary.json")]
    files += [f"translate/{name}.offline.jsonl" for name in ("base", "lora", "moe")]
    missing = [name for name in files if not work.path(name).is_file()]
    assert not missing
    for stage in ("base", "gate", "experts", "joint"):
        assert list(work.path(stage).glob("events.out.tfevents.*")) and list(work.path(stage, "checkpoints").glob("*/"))
    assert list(work.path("report", "figures").glob("*.png"))
    config = read_json(work.path("config.json"))
    assert config["digest"] == digest(config["config"]) and {"jax", "flax", "moejax"} <= config["versions"].keys()


def test_nothing_half_written_is_left(work):
    assert not [p for p in work.root.rglob("*") if p.suffix in (".tmp", ".partial") or ".tmp" in p.name]


def test_evaluated_lines(work):
    for name in (*PLAIN, *MIXED):
        lines = tiny_job.records(work.path("evaluate", f"{name}.jsonl"))
        assert len({line["id"] for line in lines}) == len(lines) > 10
        assert all({"id", "reference", "hypothesis", "route", "seconds"} <= line.keys() for line in lines)
        for line in lines:
            assert line["route"] is None if name in PLAIN else math.isclose(sum(line["route"]), 1, abs_tol=1e-4)
    # A base that has learnt something, or the comparisons of texts below would compare nothing with nothing.
    base = tiny_job.records(work.path("evaluate", "base.jsonl"))
    assert np.mean([line["hypothesis"] == line["reference"] for line in base]) > 0.5


def test_table(work):
    text = work.path("report", "table.csv").read_text()
    assert text.splitlines()[0] == "system,group,name,utterances,words,errors,wer,wer_low,wer_high,cer"
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["group"] for row in rows} == {"all", "cohort", "speaker", "etiology"}
    tested = {row["name"] for row in rows if row["group"] == "speaker" and row["system"] == "base"}
    assert {row["system"] for row in rows} == {*PLAIN, *MIXED, *(f"lora_{name}" for name in tested)}
    for row in rows:
        assert math.isclose(float(row["wer"]), int(row["errors"]) / int(row["words"]), abs_tol=1e-5)


def test_summary(work):
    summary = read_json(work.path("report", "summary.json"))
    assert set(tiny_job.STAGES) - {"report"} <= summary["stages"].keys()
    assert {"load", "max_load", "entropy", "gate_accuracy", "majority"} <= summary["routing"].keys()
    load_EC = np.array(summary["routing"]["load"])
    assert load_EC.shape == (3, 2) and np.allclose(load_EC.sum(0), 1, atol=1e-4)
    for name in ("base.offline", "moe.offline", "transcript.offline"):
        assert {"bleu", "chrf", "signature"} <= summary["translation"][name].keys()
    assert summary["config_digest"] == read_json(work.path("config.json"))["digest"]
    assert summary["versions"]["jax"] == jax.__version__
    size = {name: summary["systems"][name]["trainable"] for name in (*PLAIN, *MIXED)}
    # The one comparison at equal size: as many numbers in lora_total as in all experts and the shared one together.
    assert size["base"] == 0 and size["lora"] < size["lora_total"] == size["moe_frozen"] < size["moe"]


def test_finished_stages_are_skipped(job, tmp_path, monkeypatch):
    said = rerun(tiny_job.copy(job, tmp_path), monkeypatch)
    assert said == dict.fromkeys(tiny_job.STAGES, "finished before, skipped")


def test_a_changed_key_reruns_what_reads_it_and_says_so(job, work, tmp_path, monkeypatch):
    said = rerun(tiny_job.copy(job, tmp_path), monkeypatch, joint__balance=0.02)
    again = {name for name, words in said.items() if words != "finished before, skipped"}
    assert again == {"joint", "evaluate", "translate", "report"}
    assert "joint.balance 0.01 -> 0.02" in said["joint"] and "stage joint" in said["evaluate"]
    old, new = (tiny_job.records(w.path("joint", "metrics.jsonl")) for w in (work, Work(tmp_path / "job" / "W")))
    assert [r["step"] for r in new] == [r["step"] for r in old] and new[-1]["balance"] > 1.5 * old[-1]["balance"]


def why(folder, config, changed) -> dict:
    """{stage: why it would run} with the stages in `changed` as they stand now."""
    work, passed, reasons = Work(folder, quiet=True), {}, {}
    for name in graph.everything(config):
        done = work.finished(name)
        inputs = graph.stage_inputs(name, config, passed)
        if name in changed:
            inputs = done["inputs"]
        elif "input" in done["inputs"]:
            inputs["input"] = done["inputs"]["input"]
        passed[name] = graph.passing(name, inputs, done["summary"])
        reasons[name] = work.why_run(name, inputs)
    return {name: reason for name, reason in reasons.items() if reason}


def test_longer_training_makes_the_baselines_train_longer(job):
    config = graph.configs.resolve(tiny_job.config(joint__steps=7))
    reasons = why(job / "W", config, ())
    assert reasons.keys() == {"joint", "adapters", "evaluate", "translate", "report"}
    assert "joint.steps 6 -> 7" in reasons["joint"] and "joint.steps 6 -> 7" in reasons["adapters"]


def test_a_changed_recording_reruns_everything(job, tmp_path, monkeypatch):
    copy = tiny_job.copy(job, tmp_path)
    file = copy / "corpus" / "wav" / "ann-000.wav"
    wave, rate = soundfile.read(file)
    soundfile.write(file, 0.5 * wave[:-160], rate, subtype="PCM_16")
    monkeypatch.chdir(copy)
    moejax.run(tiny_job.config(), "W", "describe", quiet=True)
    log = (copy / "W" / "log.txt").read_text().splitlines()
    assert any("[describe] gate the audio" in line and "(changed: input " in line for line in log)
    reasons = why(copy / "W", graph.configs.resolve(tiny_job.config()), ("describe",))
    idle = (
        "describe",
        "hyper",
        "targets",
        "st",
        "ctc",
        "emotion",
        "salmonn",
    )  # nothing is to be trained by these, so nothing is trained again
    assert list(reasons) == [name for name in tiny_job.STAGES if name not in idle]


def test_stages_move_only_their_groups(work, recognizer):
    gate = functional.paths(load_params(work.path("gate", "gate.safetensors"))[0])
    experts = functional.paths(load_params(work.path("experts", "params.safetensors"))[0])
    joint = functional.paths(load_params(work.path("joint", "params.safetensors"))[0])
    assert {path.split("/")[0] for path in experts} == {path.split("/")[0] for path in joint} == {"expert", "gate"}
    for path, array in experts.items():
        if path.startswith("gate"):
            assert np.array_equal(array, gate[path]), f"experts moved {path}"
        else:
            assert not np.array_equal(array, joint[path]), f"joint did not move {path}"
    assert all(np.abs(array).max() > 0 for path, array in experts.items() if path.endswith("B"))
    assert any(not np.array_equal(joint[path], array) for path, array in gate.items() if path.startswith("gate"))
    base = functional.paths(moejax.load(work.path("base", "model")).params)
    ours = functional.paths(recognizer.params)
    assert all(np.array_equal(ours[path], array) for path, array in base.items())
    buffer = [path for path in gate if path.startswith("buffer")]
    assert buffer and all(np.array_equal(ours[path], gate[path]) for path in buffer)


def test_transcribes_what_was_evaluated_alone_together_and_in_any_order(recognizer, tested):
    waves, records = tested
    alone = [recognizer.transcribe(wave) for wave in waves[:6]]
    together = recognizer.transcribe(waves)
    backwards = recognizer.transcribe(waves[::-1])[::-1]
    assert [t.text for t in together] == [r["hypothesis"] for r in records]
    assert [t.text for t in alone] == [t.text for t in together[:6]]
    assert [t.text for t in backwards] == [t.text for t in together]
    for some in (together, backwards, alone):
        for transcript, record in zip(some, records, strict=False):
            assert len(transcript.route) == 3
            assert np.allclose(transcript.route, record["route"], atol=1e-4)


def test_a_file_is_transcribed_as_its_samples_are(recognizer, tested, job):
    waves, records = tested
    file = job / "corpus" / f"{records[0]['id']}.wav"
    assert recognizer.transcribe(str(file)).text == recognizer.transcribe(waves[0]).text
    pcm, rate = soundfile.read(file, dtype="int16")
    assert recognizer.transcribe(pcm, rate=rate).text == records[0]["hypothesis"]


def test_long_and_silent_audio(recognizer, tested):
    waves, _ = tested
    long = recognizer.transcribe(np.concatenate([np.pad(wave, (800, 4000)) for wave in waves[:4]]))
    assert len(long.segments) >= 2 and long.text
    assert all(a.end <= b.start + 1e-6 for a, b in zip(long.segments, long.segments[1:], strict=False))
    silent = recognizer.transcribe(np.zeros(8000, np.float32))
    assert silent.text == "" and silent.segments == []


def test_other_systems_by_name(work, tested):
    waves, _ = tested
    for name in ("lora_breathy", "lora_clear"):
        expected = [line["hypothesis"] for line in tiny_job.records(work.path("evaluate", f"{name}.jsonl"))]
        assert [t.text for t in moejax.load(work.root, system=name).transcribe(waves)] == expected
    with pytest.raises(KeyError, match="'lora_nobody'.*lora_breathy.*moe"):
        moejax.load(work.root, system="lora_nobody")


def test_hugging_face_folder_of_the_base(work, tested):
    # It knows no buckets: its windows are longer, and masked padding must not matter.
    waves, _ = tested
    recognizer = moejax.load(work.path("base", "model"))
    expected = [line["hypothesis"] for line in tiny_job.records(work.path("evaluate", "base.jsonl"))]
    found = recognizer.transcribe(waves)
    assert [t.text for t in found] == expected and found[0].route is None
    with pytest.raises(KeyError, match="it has base"):
        moejax.load(work.path("base", "model"), system="moe")
    with pytest.raises(FileNotFoundError, match="neither"):
        moejax.load(work.path("describe"))


def test_encoder_states_and_logits(recognizer):
    mel_BMN = np.random.default_rng(0).normal(size=(2, 40, 60)).astype(np.float32)
    states = recognizer.encode(mel_BMN)
    logits = recognizer.logits(mel_BMN, [[1, 2, 3], [3, 2, 1]])
    assert states.shape == (2, 30, 32) and logits.shape == (2, 3, recognizer.config.vocab_size)
    assert states.dtype == logits.dtype == np.float32 and np.isfinite(states).all() and np.isfinite(logits).all()


def test_training_and_recognition_have_the_same_logits(work, recognizer):
    """The loss of the joint stage's own loss function equals the loss of what `Recognizer.logits` says."""
    context = open_context(work.root)
    rows = context.corpus.rows("test")[:4]
    random = np.random.default_rng(1)
    bucket = context.buckets[-1]
    # Sound in every frame, so that the whole bucket is real to both of them.
    audio_BS = (0.1 * random.standard_normal((4, bucket))).astype(np.float32)
    config, _ = context.base.config, context.base.params
    mel_BNM = jax.jit(lambda audio: log_mel(audio, n_mels=config.num_mel_bins, hop=config.hop))(audio_BS)
    samples_B = np.full(4, bucket, np.int32)
    gate_in = asr.make_embed(recognizer.network.graphdef, recognizer.network.embedding)(
        recognizer.params, audio_BS, samples_B
    )
    collate = context.collator(rows, gate_in=np.asarray(gate_in))
    batch = tiny_job.replace(collate(bucket, np.arange(4)), audio_BS=audio_BS, samples_B=samples_B)
    loss_fn = jax.jit(
        asr.make_loss(recognizer.network.graphdef, asr.Row(route="gate"), mixture=recognizer.network.mixture)
    )
    ce = loss_fn(recognizer.params, batch, jax.random.key(0))[1]["ce"]
    logits_BLV = recognizer.logits(np.asarray(mel_BNM).transpose(0, 2, 1), batch.tokens_BL)
    ours = losses.token_cross_entropy(logits_BLV, batch.targets_BL, batch.score_BL, 0.0)[0]
    assert np.isclose(ce, ours, rtol=1e-4) and ce > 0.1
    without = moejax.load(work.root, system="base").logits(np.asarray(mel_BNM).transpose(0, 2, 1), batch.tokens_BL)
    assert np.abs(without - logits_BLV).max() > 1e-3, "the experts do nothing"


def test_evaluate_gives_the_table_of_the_report(work):
    table = moejax.evaluate(work.root)
    assert table.to_csv() == work.path("report", "table.csv").read_text()
    assert [row["system"] for row in table.to_dict()["rows"]] == [row["system"] for row in table.rows]
    assert all(f"\n| {name}" in table.to_markdown() for name in table.systems)


def test_evaluate_of_a_config_uses_the_run_of_its_name(job, work, tmp_path, monkeypatch):
    copy = tiny_job.copy(job, tmp_path)
    (copy / "runs").mkdir()
    (copy / "W").rename(copy / "runs" / "tiny")
    monkeypatch.chdir(copy)
    assert moejax.evaluate(tiny_job.config(), systems=["base"]).row("base") == moejax.evaluate(work.root).row("base")
    assert "[joint] train" not in (copy / "runs/tiny/log.txt").read_text().split("[report] done")[1]


def test_evaluate_of_some_systems_on_another_split(work):
    table = moejax.evaluate(work.root, systems=["base", "moe"], split="dev")
    assert table.systems == ["base", "moe"]
    assert table.row("base")["utterances"] == len(open_context(work.root).corpus.rows("dev"))
    with pytest.raises(KeyError, match="'lora_all'.*lora_total"):
        moejax.evaluate(work.root, systems=["lora_all"])
    with pytest.raises(ValueError, match="holdout"):
        moejax.evaluate(work.root, systems="base", split="holdout")
    with pytest.raises(FileNotFoundError, match="no moejax workdir"):
        moejax.evaluate(work.path("report"))


def test_metrics_have_every_step_once(work):
    for stage, steps in (("gate", 20), ("experts", 6), ("joint", 6), ("adapters/speaker", 12)):
        lines = work.path(*stage.split("/"), "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == list(range(1, steps + 1))


def test_a_corpus_copied_elsewhere_is_described_again_and_nothing_is_trained(job, tmp_path, monkeypatch):
    copy = tiny_job.copy(job, tmp_path)
    (copy / "corpus").rename(copy / "moved")
    for file in (copy / "moved").rglob("*"):
        file.touch()
    said = rerun(copy, monkeypatch, data__root="moved")
    assert "data.root corpus -> moved" in said.pop("describe")
    assert set(said.values()) == {"finished before, skipped"}
    context = open_context(copy / "W")
    assert all("/moved/" in path for path in context.corpus.manifest.audio_paths())


def test_another_recording_of_the_same_length_is_other_content(job, tmp_path, monkeypatch):
    """What the manifest says of it (seconds, silence) stays the same; what it passes on does not."""
    copy = tiny_job.copy(job, tmp_path)
    file = copy / "corpus" / "wav" / "ann-000.wav"
    wave, rate = soundfile.read(file)
    soundfile.write(file, -wave, rate, subtype="PCM_16")
    monkeypatch.chdir(copy)
    moejax.run(tiny_job.config(), "W", "describe", quiet=True)
    rows = [open_context(folder / "W").corpus.manifest.digest(without=("audio",)) for folder in (job, copy)]
    passes = [read_json(folder / "W" / "describe" / "done.json")["passes"] for folder in (job, copy)]
    assert rows[0] == rows[1] and passes[0] != passes[1]
    reasons = why(copy / "W", graph.configs.resolve(tiny_job.config()), ("describe",))
    idle = (
        "describe",
        "hyper",
        "targets",
        "st",
        "ctc",
        "emotion",
        "salmonn",
    )  # nothing is to be trained by these: nothing is trained again
    assert list(reasons) == [name for name in tiny_job.STAGES if name not in idle]


def test_keys_that_change_no_result_make_nothing_run(job):
    changes = {"describe__shown_groups": 3, "describe__threads": 1, "joint__log_every": 7, "base__checkpoint_every": 9}
    assert why(job / "W", graph.configs.resolve(tiny_job.config(**changes)), ()) == {}


def test_a_command_that_fails_at_its_inputs_changes_nothing(job, tmp_path, monkeypatch):
    copy = tiny_job.copy(job, tmp_path)
    monkeypatch.chdir(copy)
    before = {p: p.stat().st_mtime_ns for p in (copy / "W").rglob("*") if p.is_file()}
    with pytest.raises(FileNotFoundError, match="nowhere"):
        moejax.run(tiny_job.config(data__root="nowhere", embed__layers=(0,)), "W", quiet=True)
    assert {p: p.stat().st_mtime_ns for p in (copy / "W").rglob("*") if p.is_file()} == before
    with pytest.raises(FileNotFoundError, match="nowhere"):
        moejax.run(tiny_job.config(data__root="nowhere"), "new", quiet=True)
    with pytest.raises(
        FileNotFoundError, match="model.pretrained: none is neither .* nor the name of a published model"
    ):
        moejax.run(tiny_job.config(model__pretrained="none"), "new", quiet=True)
    assert not (copy / "new").exists()
