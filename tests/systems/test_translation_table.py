"""The stage `translate` with several translators in one run: one table, kept models, and what is never learnt from."""

import contextlib
import csv
import json

import deepl.http_client
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_job
from deepl_server import KEY, Server

import moejax
from moejax.job import config
from moejax.job.opening import open_context, open_translator
from moejax.report.console import console_summary
from moejax.runtime import faults
from moejax.score import bleu, translations
from moejax.systems import end_to_end, offline_translator
from moejax.text import normalize
from moejax.train.params_file import digest_of, load_params
from moejax.work.folder import Work

pytestmark = pytest.mark.job
SYSTEMS = ("base", "lora_total", "moe")
FREE = {"offline", "offline_tuned", "end to end"}
NAMES = ("offline", "offline_tuned", "deepl", "deepl_custom")
SETTINGS = {
    "backends": ("offline", "offline_tuned", "deepl"),
    "deepl_formality": "more",
    "systems": SYSTEMS,
    "tuned_utterances": 40,
    "tuned_steps": 20,
    "tuned_learning_rate": 3e-3,
    "checkpoint_every": 10,
    "steps": 120,
    "width": 32,
    "learning_rate": 1e-2,
    "bootstrap_samples": 50,
}


@pytest.fixture(scope="module")
def server():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPL_AUTH_KEY", KEY)
        patch.setattr(deepl.http_client, "min_connection_timeout", 10.0)
        running = Server()
        yield running
        running.close()


def run(folder, server, stages="translate", **changes):
    """W after the stage; its lines of the log since."""
    more = {"deepl_server": server.url, "deepl_cache": str(folder / "cache")}
    values = {f"translate__{key}": value for key, value in (SETTINGS | more | changes).items()}
    with contextlib.chdir(folder), tiny_job.quick():
        moejax.run(tiny_job.config(**values), "W", stages, quiet=True)
    log = Work(folder / "W", quiet=True).path("log.txt").read_text()
    return folder / "W", log.split("[translate] translate the")[-1]


def spoken_for(context, rows):
    """An end-to-end system's translations: of every other row as they should be."""
    ids, german = (context.corpus.manifest.column(name)[rows] for name in ("id", "translation"))
    yield "direct", {str(one): str(text) if i % 2 else "eins" for i, (one, text) in enumerate(zip(ids, german))}  # noqa: B905


@pytest.fixture(scope="module")
def done(tmp_path_factory, server):
    """(W, log) of one run of everything, the report too."""
    folder = tiny_job.copy(tiny_job.shared(tmp_path_factory), tmp_path_factory.mktemp("table"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(end_to_end, "translations", spoken_for)
        yield run(folder, server, ["translate", "report"])


@pytest.fixture(scope="module")
def table(done):
    with open(done[0] / "translate/table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == translations.COLUMNS
    return {(row["system"], row["translator"]): row for row in rows}


def test_every_system_by_every_translator_is_one_row(done, table):
    rows = [(system, name) for name in NAMES for system in ("transcript", *SYSTEMS)]
    assert list(table) == [*rows, ("direct", "end to end")]
    files = {path.name for path in (done[0] / "translate").glob("*.jsonl")}
    assert files == {f"{system}.{name}.jsonl" for system, name in [*rows, ("direct", "end_to_end")]}
    assert {row["sentences"] for row in table.values()} == {str(len(open_context(done[0]).corpus.rows("test")))}


def test_rows_are_the_figures_of_their_files(done, table):
    for (system, name), row in table.items():
        records = tiny_job.records(done[0] / f"translate/{translations.name_of(system, name)}.jsonl")
        found = bleu.score([r["hypothesis"] for r in records], [r["reference"] for r in records])
        assert (float(row["bleu"]), float(row["chrf"])) == (found["bleu"], found["chrf"])
        assert (row["signature"], row["chrf_signature"]) == (found["signature"], found["chrf_signature"])
    assert len({row["chrf"] for row in table.values()}) > 4  # BLEU is 0: no sentence here has four words


def test_wer_is_that_of_the_report_and_of_nobody_else(done, table):
    with open(done[0] / "report/table.csv", newline="") as file:
        rates = {row["system"]: row["wer"] for row in csv.DictReader(file) if row["group"] == "all"}
    for (system, _), row in table.items():
        if system in rates:
            assert float(row["wer"]) == pytest.approx(float(rates[system]), abs=1e-5)
    assert {row["wer"] for (system, _), row in table.items() if system == "transcript"} == {"0.0"}
    assert table["direct", "end to end"]["wer"] == ""  # it writes no transcript
    assert len({table[system, "offline"]["wer"] for system in SYSTEMS}) > 1


def test_all_are_tested_against_one_row(done, table):
    texts = {}
    for system, name in (("lora_total", "offline"), ("base", "deepl")):
        records = tiny_job.records(done[0] / f"translate/{system}.{name}.jsonl")
        texts[system] = [r["hypothesis"] for r in records]
    found = bleu.paired(texts, [r["reference"] for r in records], samples=50)["base"]
    row = table["base", "deepl"]
    assert {key: float(row[key]) for key in found} == found
    empty = {key for key, row in table.items() if row["bleu_p"] == ""}
    assert empty == {("lora_total", "offline")} and float(row["chrf_p"]) < 0.05  # upper case is no German here
    assert row["bleu_p"] == "1.0"  # both are 0


def test_page_summary_and_console_have_the_table(done, table):
    page = (done[0] / "report/report.html").read_text()
    said = (done[0] / "translate/table.md").read_text()
    console = console_summary(Work(done[0], quiet=True))
    summary = json.loads((done[0] / "report/summary.json").read_text())["translation"]
    assert list(summary) == [translations.name_of(*key) for key in table]
    for (system, name), row in table.items():
        cells = [system, name, row["sentences"]]
        assert f"<td>{'</td><td>'.join(cells)}</td>" in page and f"| {' | '.join(cells)} |" in said
        assert f"{float(row['bleu']):.1f} (" in page
        line = next(x for x in console.splitlines() if x.startswith(f"{system} {name} "))
        assert f"{float(row['bleu']):.1f}" in line.split() and f"{float(row['chrf']):.1f}" in line.split()
    assert (
        "p against <code>lora_total.offline</code>" in page
        and row["signature"] in page
        and row["chrf_signature"] in page
    )


def test_customised_deepl_stands_beside_plain_and_both_costs_come_first(done, server):
    told = [body for body in server.requests if body.get("formality") == "more"]
    assert told and len(told) < len(server.requests)
    costs = [line for line in done[1].splitlines() if "characters to be billed" in line]
    assert len(costs) == 2 and "  deepl_custom: DeepL EN to DE" in costs[1]


def test_tuned_learns_from_no_sentence_of_dev_or_test(done):
    context = open_context(done[0])
    manifest, rows = context.corpus.manifest, offline_translator.tuned_rows(context)
    rule = normalize.lower
    held = {rule(str(text)) for text in manifest.column("text")[manifest.indices(split=["dev", "test"])]}
    spoken = [rule(str(text)) for text in manifest.column("text")[context.corpus.rows("train")]]
    assert 0 < sum(text in held for text in spoken) < len(spoken)  # or nothing would be tested
    assert set(manifest.column("split")[rows]) == {"train"} and len(rows) <= 40
    assert not {rule(str(text)) for text in manifest.column("text")[rows]} & held
    heard = tiny_job.records(done[0] / "translate/tuned/heard.jsonl")
    assert {line["id"] for line in heard} == {str(one) for one in manifest.column("id")[rows]}
    clean = offline_translator._clean(context, 1000)
    assert clean and not {rule(text) for text, _ in clean} & held
    assert len(offline_translator._clean(context, 7)) == 7


@pytest.mark.parametrize("name", ["offline", "offline_tuned"])
def test_both_models_open_by_their_names(done, name):
    with contextlib.chdir(done[0].parent), tiny_job.quick():
        translator, into = open_translator(done[0], name)
        records = tiny_job.records(done[0] / f"translate/base.{name}.jsonl")
        found = translator.translate([record["source"] for record in records])
    assert into == "de" and found == [record["hypothesis"] for record in records]


def params(work, name):
    return digest_of(load_params(work / "translate" / name / "params.safetensors")[0])


def test_tuning_goes_on_where_it_was_stopped(done, tmp_path_factory, server):
    folder = tiny_job.copy(tiny_job.shared(tmp_path_factory), tmp_path_factory.mktemp("stopped"))
    wanted = {"backends": ("offline_tuned",)}
    stops = ("evaluate.batch:2=raise", "train.step:15=raise")  # while it listens, and while it learns
    for stop in stops:
        with contextlib.ExitStack() as stack, pytest.raises(OSError, match="space"):
            stack.callback(faults.arm, "")
            faults.arm(stop)
            run(folder, server, **wanted)
    work, _ = run(folder, server, **wanted)
    said = [line for line in (work / "log.txt").read_text().splitlines() if "decoded before" in line]
    assert [line.split()[3] for line in said] == ["16", "40"]
    for name in ("model", "tuned"):
        assert params(work, name) == params(done[0], name)
    assert params(work, "model") != params(work, "tuned")
    lines = [(work_ / "translate/tuned/heard.jsonl").read_text() for work_ in (work, done[0])]
    strip = [[{k: v for k, v in json.loads(x).items() if k != "seconds"} for x in text.splitlines()] for text in lines]
    assert strip[0] == strip[1]


@pytest.fixture
def again(done, tmp_path):
    """A copy of the finished folder."""
    return tiny_job.copy(done[0].parent, tmp_path)


def test_models_are_kept_while_what_made_them_stands(again, server):
    before = {
        name: (again / f"W/translate/{name}/params.safetensors").stat().st_mtime_ns for name in ("model", "tuned")
    }
    paid = server.used
    work, log = run(again, server, bootstrap_samples=20)
    assert {name: (work / f"translate/{name}/params.safetensors").stat().st_mtime_ns for name in before} == before
    assert server.used == paid and "trains backbone" not in log
    work, log = run(again, server, backends=("offline",), steps=9, checkpoint_every=100)
    assert log.count("trains backbone") == 1 and not (work / "translate/tuned").exists()
    assert not list((work / "translate").glob("*.deepl*.jsonl"))
    translator, into = open_translator(work)
    assert into == "de" and len(translator.translate(["ba do"])) == 1


def test_a_row_whose_translator_made_the_references_is_left_out_and_others_are_not(again, server):
    file = again / "W/describe/manifest.parquet"
    rows = pq.read_table(file)
    place = rows.column_names.index("translation_source")
    deepl = pa.array(["deepl:2026"] * len(rows))
    pq.write_table(rows.set_column(place, "translation_source", deepl), file)
    work, log = run(again, server, against="lora_total.deepl")
    summary = json.loads((work / "translate/summary.json").read_text())
    assert {row["translator"] for row in summary.values()} == FREE
    assert "moe.deepl is not scored: 30 of 30 references were made by its translator" in log.replace(
        f"{len(open_context(work).corpus.rows('test'))}", "30"
    )
    assert log.count("is not scored") == 8  # DeepL's two rows of three systems and of the transcripts
    assert "no p-values: translate.against is 'lora_total.deepl'" in log
    assert all("bleu_p" not in row and "bleu_ci" in row for row in summary.values())
    assert (work / "translate/moe.deepl.jsonl").exists()


def test_a_dry_run_scores_what_costs_nothing(again, server):
    work, log = run(again, server, dry_run=True)
    summary = json.loads((work / "translate/summary.json").read_text())
    assert {row["translator"] for row in summary.values()} == FREE and "nothing is sent" in log


def test_without_a_command_comet_is_one_line(again, server):
    work, log = run(again, server, comet="wmt22.ckpt", comet_command="no-such-comet", backends=("offline",))
    assert log.count("COMET is left out: no command 'no-such-comet'") == 1
    assert "COMET" not in (work / "translate/table.md").read_text()


def test_a_workdir_of_one_translator_opens(again):
    """Its config has the key by its older name."""
    said = json.loads((again / "W/config.json").read_text())
    del said["config"]["translate"]["backends"]
    said["config"]["translate"] |= {"backend": "deepl", "target": "pt-br"}
    (again / "W/config.json").write_text(json.dumps(said))
    with contextlib.chdir(again):
        assert tuple(open_context(again / "W").cfg.translate.backends) == ("deepl",)
    with pytest.raises(KeyError, match="no key 'translate.backend'; did you mean translate.backends?"):
        config.resolve(tiny_job.config(translate__backend="deepl"))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"backends": ("auto", "deepl")}, "'translate.backends' has 'auto' beside others"),
        ({"backends": ("deepl_custom",)}, "has 'deepl_custom', and none of translate's deepl_glossary"),
        ({"backends": ()}, "'translate.backends' is empty"),
        ({"against": "moe"}, "'translate.against' is 'moe'; it takes SYSTEM.TRANSLATOR with one of offline,"),
        ({"against": "moo.offline"}, "'translate.against' has 'moo'; known: base"),
        ({"tuned_system": "moo"}, "'translate.tuned_system' has 'moo'; known: base"),
        ({"bootstrap_seed": 0}, "'translate.bootstrap_seed' is 0"),
    ],
)
def test_what_no_table_can_be_made_of_is_refused_in_one_line(values, words):
    with pytest.raises(ValueError, match=words) as caught:
        config.resolve(tiny_job.config(**{f"translate__{key}": value for key, value in values.items()}))
    assert "\n" not in str(caught.value)


def test_published_models_are_rows_too():
    from moejax.systems import translate

    chosen = config.resolve(tiny_job.config(evaluate__published=("tiny.en",), translate__systems=("base", "moe")))
    assert translate.systems(chosen) == ["base", "whisper-tiny.en", "moe"]
    config.resolve(tiny_job.config(evaluate__published=("tiny.en",), translate__against="whisper-tiny.en.offline"))
