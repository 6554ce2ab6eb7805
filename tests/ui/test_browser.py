"""The page in a real Chromium: files, microphone, keyboard, telephone, and no request that leaves this machine."""

import importlib.util
import os
import re
import shutil
import urllib.parse

import pytest
import soundfile
from judges import diarizer, judge
from tiny_model import record, sound

from moejax.serve.models import Which
from moejax.ui import trainer
from moejax.ui.desk import Choice, Desk

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
MISSING += [] if CHROMIUM else ["Chromium"]
WANTED = bool(os.environ.get("MOEJAX_TEST_BROWSER"))  # in CI: what is missing fails
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(MISSING) and not WANTED, reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.filterwarnings("ignore"),  # of gradio and what it stands on
]
PATIENCE = 120_000  # ms; a busy machine is slow, and nothing waits longer than it has to
MICROPHONE = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
AUDIO = "document.querySelector('.mj-answer audio')"


class WithReport(Desk):
    """As if the first model were a workdir that has a report."""

    def report(self, model):
        return self.sounds.folder.parent / "report.html" if model == "timed" else None


@pytest.fixture(scope="module")
def url(models, tmp_path_factory):
    assert not MISSING, f"not installed: {', '.join(MISSING)}"
    from paging import desk, served

    folder = tmp_path_factory.mktemp("page")
    (folder / "report.html").write_text("<h1>Whom does it help?</h1>")
    spoken = str(record(folder / "warm.wav", 2.0))
    (folder / "phrases").mkdir()
    record(folder / "phrases" / "one.wav", 1.0)
    (folder / "phrases" / "one.txt").write_text("ba do ki")
    with desk(models, folder, WithReport, diarizer=diarizer()) as found:
        judges = {"letters": judge(models.get(Which("timed")))}
        judging = trainer.Trainer(found, judges, trainer.sentences(folder / "phrases"))
        with served(found, folder, judging) as address:
            for model in ("timed", "micro"):  # compiled before anybody waits for it
                assert "mj-said" in list(found.read(spoken, Choice(model, talkers="0")))[-1]
            assert "mj-sentence" in judging.judge(spoken, "letters", "ba do")
            yield address


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    from playwright.sync_api import sync_playwright

    spoken = tmp_path_factory.mktemp("microphone") / "spoken.wav"
    soundfile.write(spoken, sound(4.0, rate=48000), 48000)
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", *MICROPHONE, f"--use-file-for-fake-audio-capture={spoken}"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def visit(url, chromium):
    """`visit(width)`: a page of somebody who has just come. What it asks for elsewhere is an error."""
    contexts, elsewhere = [], []

    def come(width=1200):
        contexts.append(chromium.new_context(viewport={"width": width, "height": 900}))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda asked: elsewhere.append(asked.url) if not ours(asked.url, url) else None)
        page.goto(url)
        page.wait_for_selector("#transcribe")
        return page

    yield come
    for context in contexts:
        context.close()
    assert elsewhere == []


def ours(asked, url):
    parts = urllib.parse.urlsplit(asked)
    return parts.scheme in ("data", "blob") or parts.netloc == urllib.parse.urlsplit(url).netloc


def choose(page, path, key="recording"):
    page.set_input_files(f"#{key}-file input[type=file]", str(path))
    page.wait_for_selector(f"#{key}-file a[download]")


def read(page):
    page.click("#transcribe")
    page.wait_for_selector("#answer .mj-said")
    return page.inner_text("#answer .mj-said")


def refused(page, words):
    page.wait_for_function(f"document.querySelector('#answer .mj-wrong')?.innerText.includes({words!r})")


def pick(page, key, name):
    """Chooses from a list as a person does."""
    page.click(f"#{key} input")
    page.get_by_role("option", name=name, exact=True).click()


def test_a_file_is_read_its_words_play_and_its_subtitles_are_kept(visit, tmp_path):
    page = visit()
    choose(page, record(tmp_path / "talk.wav", 6.0))
    assert read(page)
    word = page.locator("#answer .mj-word").nth(1)
    page.evaluate(f"{AUDIO}.addEventListener('seeking', event => (window.sought = event.target.currentTime))")
    word.click()
    at = float(word.get_attribute("data-at"))
    page.wait_for_function(f"Math.abs(window.sought - {min(at, 5.9)}) < 0.2 && !{AUDIO}.paused")
    page.click("#answer .mj-wave")  # in its middle
    page.wait_for_function("Math.abs(window.sought - 3) < 0.2")
    with page.expect_download() as found:
        page.click("#answer a[download$='.srt']")
    assert found.value.suggested_filename == "talk.srt"
    blocks = found.value.path().read_text().strip().split("\n\n")
    assert blocks and all(re.match(r"\d+\n[\d:,]{12} --> [\d:,]{12}\n?", block) for block in blocks)


def test_what_is_spoken_into_the_microphone_is_read(visit):
    page, held = visit(), []
    page.route("**/upload*", lambda upload: held.append(upload))
    page.locator("#recording-microphone").get_by_role("button", name="Record").click()
    stop = page.locator("#recording-microphone").get_by_role("button", name="Stop").first
    stop.wait_for()
    page.wait_for_selector("#transcribe[disabled]")
    page.wait_for_function(
        "!['', '0:00'].includes(document.querySelector('#recording-microphone .duration').innerText)"
    )
    with page.expect_request("**/upload*"):
        stop.click()
    page.wait_for_selector("#recording-microphone [aria-label='Play']")
    assert page.locator("[aria-label='Share']").count() == 0
    assert page.is_disabled("#transcribe")  # as long as the upload takes
    held[0].continue_()
    assert read(page)
    length = float(page.get_attribute("#answer .mj-wave", "data-seconds"))
    assert 0.5 < length < 60


def test_what_cannot_be_read_is_one_sentence(visit, tmp_path):
    page = visit()
    page.click("#transcribe")
    refused(page, "There is no recording yet: choose a file, or record one.")
    (tmp_path / "letter.txt").write_text("no sound")
    choose(page, tmp_path / "letter.txt")
    page.click("#transcribe")
    refused(page, "The recording is unreadable")
    assert page.get_attribute("#answer .mj-wrong", "role") == "alert"


def test_two_models_are_compared(visit, tmp_path):
    page = visit()
    choose(page, record(tmp_path / "talk.wav", 3.0))
    page.locator("#comparison button").first.click()
    page.click("#compare")
    page.wait_for_selector("#answer .mj-compared")
    assert page.locator("#answer .mj-compared mark").count() and page.locator("#answer .mj-answer").count() == 2
    assert re.search(r"They differ at \d+ of \d+ words", page.inner_text("#answer .mj-compared"))


def test_a_voice_is_enrolled_and_chosen(visit, tmp_path):
    page = visit()
    page.get_by_role("tab", name="Enrol").click()
    page.click("#add-phrase")
    page.wait_for_selector("#phrases .mj-wrong")
    choose(page, record(tmp_path / "phrase.wav", 2.0, seed=3), "phrase")
    page.fill("#phrase-text textarea", "ba do")
    page.click("#add-phrase")
    page.wait_for_selector("#phrases li")
    page.fill("#voice-name textarea, #voice-name input", "browser.anna")
    page.click("#keep-voice")
    page.wait_for_selector("#kept .mj-told")
    page.get_by_role("tab", name="Transcribe").click()
    choose(page, record(tmp_path / "talk.wav", 3.0))
    pick(page, "speaker", "browser.anna")
    assert read(page)
    assert page.inner_text("#answer h3") == "timed, speaker browser.anna"


def tab_to(page, selector):
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(f"document.activeElement.matches({selector!r})"):
            return
    raise AssertionError(f"Tab does not come to {selector}")


def choose_by_keyboard(page, path, key):
    page.on("filechooser", lambda _: None)  # long before Enter: keys and this come to the page by different ways
    tab_to(page, f"#{key}-file button")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(str(path))
    page.wait_for_selector(f"#{key}-file a[download]")


def test_everything_is_reached_by_the_keyboard(visit, tmp_path):
    page = visit()
    choose_by_keyboard(page, record(tmp_path / "talk.wav", 6.0), "recording")
    tab_to(page, "#transcribe")
    page.keyboard.press("Enter")
    page.wait_for_selector("#answer .mj-word")
    tab_to(page, ".mj-word")
    page.keyboard.press("ArrowRight")
    at = page.evaluate("Number(document.activeElement.dataset.at)")
    assert page.locator("#answer .mj-word").nth(1).evaluate("word => word === document.activeElement")
    page.keyboard.press("Enter")
    page.wait_for_function(f"{AUDIO}.currentTime >= {min(at, 5.9)}")


def test_a_sentence_is_judged_by_the_keyboard_and_one_of_its_words_is_played_alone(visit, tmp_path):
    page = visit(400)
    tab_to(page, "button[role=tab][aria-selected=true]")
    page.get_by_role("tab", name="Pronounce").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#judge-text")
    page.click("#judge")
    page.wait_for_function("document.querySelector('#judgement .mj-wrong')?.innerText.includes('no recording yet')")
    pick(page, "judge-sentences", "ba do ki")
    page.wait_for_selector("#judge-reference audio")
    assert page.input_value("#judge-text textarea, #judge-text input") == "ba do ki"
    choose_by_keyboard(page, record(tmp_path / "talk.wav", 2.0), "spoken")
    tab_to(page, "#judge")
    page.keyboard.press("Enter")
    page.wait_for_selector("#judgement .mj-scores")
    tab_to(page, "#judgement .mj-word")
    page.keyboard.press("ArrowRight")
    audio = "document.querySelector('#judgement audio')"
    page.evaluate(f"{audio}.addEventListener('play', () => (window.played = true))")
    page.keyboard.press("Enter")
    page.wait_for_function(f"window.played && {audio}.paused")
    to = float(page.locator("#judgement .mj-word").nth(1).get_attribute("data-to"))
    page.wait_for_function(f"Math.abs({audio}.currentTime - {to}) < 0.02")
    assert to < 1.9  # of 2 s
    assert page.inner_text("#judgement .mj-parts").startswith("do: letter d: ")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_two_people_at_once_on_telephones_have_each_their_own(visit, tmp_path):
    pages = [visit(400), visit(400)]
    for seed, page in enumerate(pages):
        choose(page, record(tmp_path / f"talk{seed}.wav", 2.0 + 2 * seed, seed=seed))
    for page in pages:
        page.click("#transcribe")
    for seed, page in enumerate(pages):
        page.wait_for_selector("#answer .mj-said")
        assert float(page.get_attribute("#answer .mj-wave", "data-seconds")) == 2.0 + 2 * seed
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")  # nothing beside the screen
        page.screenshot(path=tmp_path / f"telephone{seed}.png", full_page=True)


def test_who_speaks_when_stands_below_the_waveform_and_plays(visit, tmp_path):
    page = visit(400)
    assert [tab.inner_text() for tab in page.get_by_role("tab").all()] == ["Transcribe", "Enrol", "Pronounce", "Report"]
    choose(page, record(tmp_path / "talk.wav", 3.0))
    pick(page, "talkers", "2")
    assert "speaker" in read(page)
    places = "[...document.querySelectorAll('#answer .mj-wave')].map(wave => wave.getBoundingClientRect())"
    assert page.evaluate(f"new Set({places}.map(place => `${{place.left}} ${{place.right}}`)).size") == 1  # in step
    page.evaluate(f"{AUDIO}.addEventListener('seeking', event => (window.sought = event.target.currentTime))")
    page.locator("#answer .mj-turns").first.click()  # in its middle
    page.wait_for_function("Math.abs(window.sought - 1.5) < 0.1")
    with page.expect_download() as found:
        page.click("#answer a[download$='.rttm']")
    assert found.value.path().read_text().startswith("SPEAKER talk 1 ")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    pick(page, "talkers", "do not ask")
    page.click("#transcribe")
    page.wait_for_selector("#answer .mj-turns", state="detached")


def test_a_report_is_a_tab(visit):
    page = visit()
    page.get_by_role("tab", name="Report").click()
    page.frame_locator("iframe.mj-report").get_by_text("Whom does it help?").wait_for()
