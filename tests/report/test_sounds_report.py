"""The page to listen to, in a real Chromium: the playhead goes with the sound, and nothing is loaded from elsewhere."""

import importlib.util
import re
import shutil

import numpy as np
import pytest

from moejax.report import playhead, sound_figures

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
RATE, HOP = 8000, 200
TIME = np.arange(2 * RATE) / RATE
PICTURES = {
    "wave": np.stack([0.2 * np.sin(2 * np.pi * hertz * TIME) for hertz in (300, 900)]).astype(np.float32),
    "image": np.random.default_rng(0).normal(-40, 10, (2, 16, 80)),
    "saliency": np.random.default_rng(1).random((2, 16, 80)),
    "label": np.array([0, 1]),
    "rate": np.array(RATE),
    "hop": np.array(HOP),
    "model": np.array("cnn"),
    "how": np.array("where its answer changes most"),
}


def test_pictures_and_page_name_every_class_and_nothing_outside():
    text = playhead.page(PICTURES, ["hum", "<ring>"], "what decides")
    assert text.count('<div class="clip">') == 2 and "&lt;ring&gt;" in text and "for cnn" in text
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text) and "http" not in text
    plain = {name: value for name, value in PICTURES.items() if name not in ("saliency", "model", "how")}
    assert "checkbox" not in playhead.page(plain, ["hum", "ring"], "clips")
    for png in (sound_figures.mels(PICTURES, ["hum", "ring"]), sound_figures.confusion(np.eye(3), list("abc"), "cnn")):
        assert png.startswith(b"\x89PNG") and len(png) > 1000


@pytest.mark.browser
@pytest.mark.skipif(not (CHROMIUM and importlib.util.find_spec("playwright")), reason="not installed: a browser")
@pytest.mark.filterwarnings("ignore")
def test_the_playhead_goes_with_the_sound(tmp_path):
    from playwright.sync_api import sync_playwright

    (tmp_path / "saliency.html").write_text(playhead.page(PICTURES, ["hum", "ring"], "what decides"))
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page()
        page.set_default_timeout(120_000)
        asked, wrong = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(error))
        page.goto((tmp_path / "saliency.html").as_uri())
        first = page.locator(".clip").first
        where = "() => Number(document.querySelector('.clip canvas').dataset.playhead)"
        page.wait_for_function("document.querySelector('.clip canvas').dataset.playhead === '0.00'")
        first.locator("audio").evaluate(
            "audio => new Promise(done => { audio.onseeked = done; audio.currentTime = 1; })"
        )
        page.wait_for_function("Number(document.querySelector('.clip canvas').dataset.playhead) > 39.5")
        assert page.evaluate(where) == pytest.approx(40.0, abs=0.6)  # half of 80 frames
        green = """canvas => { const x = Math.round(Number(canvas.dataset.playhead)) - 1;
            const row = canvas.getContext('2d').getImageData(0, 90, canvas.width, 1).data;
            return [...Array(canvas.width).keys()].filter(i => row[4 * i] === 32 && row[4 * i + 1] === 208); }"""
        shown = first.locator("canvas").evaluate(green)
        assert all(abs(x - 40) <= 1 for x in shown)
        colour = (
            "canvas => canvas.getContext('2d').getImageData(3, 3, 70, 170).data.filter((v, i) => i % 4 === 0).join()"
        )
        before = first.locator("canvas").evaluate(colour)
        first.locator("input").uncheck()
        assert first.locator("canvas").evaluate(colour) != before
        first.locator("audio").evaluate("audio => audio.play()")
        page.wait_for_function("Number(document.querySelector('.clip canvas').dataset.playhead) > 60")
        browser.close()
    assert wrong == [] and all(url.startswith(("file:", "data:", "blob:")) for url in asked)
