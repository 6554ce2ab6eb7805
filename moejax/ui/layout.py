"""The page: where things stand, and what calls what. The only file that imports gradio; everything else is `desk`."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported

import gradio as gr  # noqa: E402
from fastapi import FastAPI  # noqa: E402
from fastapi.responses import FileResponse, PlainTextResponse, Response  # noqa: E402
from gradio.themes import Default  # noqa: E402

from moejax.ui.desk import Choice, Desk, phrases  # noqa: E402
from moejax.ui.marks import escaped  # noqa: E402
from moejax.ui.trainer import Trainer  # noqa: E402

HERE = Path(__file__).parent
FORGET = (600, 3600)  # every so many seconds uploads that are older than so many are removed
AT_ONCE = 16  # requests of a kind; the service queues them, and reads them together
# Nothing is fetched from anywhere else, whatever a library might try.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"
NARROW = 120  # pixels of a list: six beside one another, two on a telephone
FONTS = ["system-ui", "sans-serif"]
ABOUT = "Text of a recording, read on this machine. Nothing is sent anywhere; recordings are forgotten when it ends."


def build(desk: Desk, folder: Path, trainer: Trainer | None = None) -> FastAPI:
    """The application; `folder` takes uploads, and who made it removes it. With a trainer there is a tab of its own."""
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    reports = {name: path for name in desk.models.names if (path := desk.report(name))}

    def sound(name: str) -> Response:
        path = desk.sounds.find(name)
        return FileResponse(path, media_type="audio/wav") if path else PlainTextResponse("it is gone", 404)

    def report(number: int) -> Response:
        found = list(reports.values())[number : number + 1]
        return FileResponse(found[0], media_type="text/html") if found else PlainTextResponse("no such report", 404)

    app.add_api_route("/sounds/{name}", sound, methods=["GET", "HEAD"], response_model=None)
    app.add_api_route("/reports/{number}", report, methods=["GET"], response_model=None)
    page = _page(desk, list(reports), trainer)
    page.queue(default_concurrency_limit=AT_ONCE, max_size=100, api_open=False)
    gr.mount_gradio_app(
        app,
        page,
        "/",
        footer_links=[],
        run_history=False,  # it would keep recordings in the browser
        max_file_size=round(desk.service.limits.megabytes * (1 << 20)),
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=Default(font=FONTS, font_mono=["monospace"]),
        css=(HERE / "page.css").read_text(encoding="utf-8"),
        head=f"<script>{(HERE / 'page.js').read_text(encoding='utf-8')}</script>",
    )
    app.add_middleware(_Policy)
    return app


class _Policy:
    """Says with every answer that a browser may fetch from here alone."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def with_policy(message):
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"content-security-policy", POLICY.encode())]
                message = {**message, "headers": [*headers, (b"referrer-policy", b"no-referrer")]}
            await send(message)

        await self.app(scope, receive, with_policy if scope["type"] == "http" else send)


def _page(desk: Desk, reports: Sequence[str], trainer: Trainer | None) -> gr.Blocks:
    with gr.Blocks(title="moejax", analytics_enabled=False, delete_cache=FORGET) as page:
        gr.Markdown(f"# moejax\n{ABOUT}")
        mine = gr.State([])  # voices that were enrolled on this page
        with gr.Tab("Transcribe"):
            speakers = _transcribe(page, desk, mine)
        with gr.Tab("Enrol"):
            _enroll(desk, mine, speakers)
        if trainer is not None:
            with gr.Tab("Pronounce"):
                _pronounce(trainer)
        if reports:
            with gr.Tab("Report"):
                for number, name in enumerate(reports):
                    frame = (
                        f'<iframe class="mj-report" src="/reports/{number}" sandbox title="report of {escaped(name)}">'
                    )
                    gr.HTML(f"<h3>{escaped(name)}</h3>{frame}</iframe>" if len(reports) > 1 else f"{frame}</iframe>")
    return page


def _recording(key: str):
    """A file or the microphone: what is given last is the recording."""
    with gr.Row():
        with gr.Column(min_width=300):  # of a telephone: below one another
            file = gr.File(label="A file", file_count="single", height=120, elem_id=f"{key}-file")
        with gr.Column(min_width=300):
            microphone = gr.Audio(
                sources=["microphone"],
                type="filepath",
                label="or the microphone",
                editable=False,
                buttons=["download"],  # there is one that shares with the net
                elem_id=f"{key}-microphone",
            )
    file.upload(lambda: None, None, microphone, show_progress="hidden", api_visibility="private")
    microphone.stop_recording(lambda: None, None, file, show_progress="hidden", api_visibility="private")
    return file, microphone


def _until_given(buttons: list[gr.Button], file: gr.File, microphone: gr.Audio):
    """These wait while somebody speaks, and until what was spoken is here: before that there is nothing to read."""
    given = [microphone.stop_recording, microphone.clear, file.upload]  # the first comes when the upload is done
    for events, ready in (([microphone.start_recording], False), (given, True)):
        switch = functools.partial(_switched, len(buttons), ready)
        gr.on(events, switch, None, buttons, show_progress="hidden", api_visibility="private")


def _switched(count: int, ready: bool):
    found = [gr.Button(interactive=ready) for _ in range(count)]
    return found if count > 1 else found[0]


def _chosen(desk: Desk, key: str, label: str, *, at: int = 0):
    """(model, system): two lists, the second following the first."""
    names = desk.models.names
    first = names[min(at, len(names) - 1)]
    model = gr.Dropdown(names, value=first, label=f"{label}model", elem_id=f"{key}-model", min_width=NARROW)
    system = _systems(desk, model.value, label=f"{label}system", elem_id=f"{key}-system")
    model.change(lambda name: _systems(desk, name), model, system, show_progress="hidden", api_visibility="private")
    return model, system


def _systems(desk: Desk, model: str, **more) -> gr.Dropdown:
    """Shown where there are several."""
    found = desk.systems(model)
    return gr.Dropdown(found, value="", visible=len(found) > 1, min_width=NARROW, **more)


def _transcribe(page: gr.Blocks, desk: Desk, mine: gr.State) -> list[gr.Dropdown]:
    """The first tab; its lists of speakers."""
    file, microphone = _recording("recording")
    with gr.Row():
        model, system = _chosen(desk, "first", "")
        narrow: dict[str, Any] = {"min_width": NARROW}
        known, tasks, counts = desk.languages(model.value), desk.tasks(model.value), desk.talkers()
        language = gr.Dropdown(known, value="", label="language", elem_id="language", **narrow)
        target = gr.Dropdown(tasks, value="", label="task", elem_id="task", **narrow)
        speaker = gr.Dropdown(desk.speakers(), value="", label="voice", elem_id="speaker", **narrow)
        asked = {"value": "0", "visible": True} if counts else {"value": "", "visible": False}
        talkers = gr.Dropdown(counts, label="who speaks", elem_id="talkers", **asked, **narrow)
    start = gr.Button("Transcribe", variant="primary", elem_id="transcribe")
    with gr.Accordion("Compare with another", open=False, elem_id="comparison"):
        with gr.Row():
            other, other_system = _chosen(desk, "second", "other ", at=1)
            other_speaker = gr.Dropdown(desk.speakers(), value="", label="other voice", elem_id="second-speaker")
        compare = gr.Button("Compare", elem_id="compare")
    answer = gr.HTML("", elem_id="answer", container=False)
    _until_given([start, compare], file, microphone)

    def read(file, microphone, *chosen):
        yield from desk.read(file or microphone, Choice(*chosen))

    def both(file, microphone, model, system, language, target, speaker, other, other_system, other_speaker):
        choices = [Choice(model, system, language, target, speaker)]
        choices.append(Choice(other, other_system, language, target, other_speaker))
        yield from desk.compare(file or microphone, choices[0], choices[1])

    def follow(name, system):
        return gr.Dropdown(desk.languages(name), value=""), gr.Dropdown(desk.tasks(name, system), value="")

    asked = [file, microphone, model, system, language, target, speaker]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    start.click(read, [*asked, talkers], answer, show_progress="minimal", api_visibility="private")
    compare.click(both, [*asked, other, other_system, other_speaker], answer, api_visibility="private")
    system.change(follow, [model, system], [language, target], **quiet)
    model.change(follow, [model, system], [language, target], **quiet)
    speakers = [speaker, other_speaker]
    page.load(lambda mine: [_speakers(desk, mine)] * 2, mine, speakers, **quiet)
    return speakers


def _enroll(desk: Desk, mine: gr.State, speakers: list[gr.Dropdown]) -> None:
    """The second tab."""
    gr.Markdown(
        "Three to five phrases of two to six seconds, each with what is said in it, stand in front of what a model "
        "hears from then on: it reads with this voice in its ears. Nothing is trained. They are kept on this machine "
        "(`moejax speakers` lists and removes them)."
    )
    spoken = gr.State([])
    file, microphone = _recording("phrase")
    text = gr.Textbox(label="What is said in it", max_lines=3, elem_id="phrase-text")
    add = gr.Button("Add phrase", elem_id="add-phrase")
    said = gr.HTML(phrases([]), elem_id="phrases", container=False)
    with gr.Row():
        name = gr.Textbox(label="Name of the voice", max_lines=1, elem_id="voice-name")
        replace = gr.Checkbox(label="replace a voice of that name", visible=desk.private)
    keep = gr.Button("Keep voice", variant="primary", elem_id="keep-voice")
    done = gr.HTML("", elem_id="kept", container=False)
    _until_given([add], file, microphone)

    def added(file, microphone, text, spoken):
        found, shown = desk.phrase(file or microphone, text, spoken)
        fresh = len(found) > len(spoken)
        return found, shown, *((None, None, "") if fresh else (gr.skip(), gr.skip(), gr.skip()))

    def kept(name, spoken, replace, mine):
        fresh, shown = desk.enroll(name, spoken, replace)
        mine = [*mine, name.strip()] if fresh else mine
        lists = [_speakers(desk, mine)] * 2 if fresh else [gr.skip(), gr.skip()]
        return [shown, mine, [] if fresh else spoken, *lists]

    inputs = [file, microphone, text, spoken]
    add.click(added, inputs, [spoken, said, file, microphone, text], api_visibility="private")
    keep.click(kept, [name, spoken, replace, mine], [done, mine, spoken, *speakers], api_visibility="private")


def _pronounce(trainer: Trainer) -> None:
    """The tab of pronunciation."""
    names, quiet = trainer.names, dict[str, Any](show_progress="hidden", api_visibility="private")
    offered = [(one.text, place) for place, one in enumerate(trainer.sentences)]
    with gr.Row(visible=len(names) > 1 or bool(offered)):
        model = gr.Dropdown(names, value=names[0], label="model", visible=len(names) > 1, elem_id="judge-model")
        number = gr.Dropdown(offered, value=None, label="sentences", visible=bool(offered), elem_id="judge-sentences")
    text = gr.Textbox(label="What should be said", info=trainer.hint(names[0]), max_lines=4, elem_id="judge-text")
    heard = gr.HTML("", elem_id="judge-reference", container=False, visible=False)
    with gr.Accordion("A reference of your own", open=False, elem_id="own-reference"):
        own = gr.File(label="How it should sound", file_count="single", height=120, elem_id="own-reference-file")
    file, microphone = _recording("spoken")
    start = gr.Button("Judge", variant="primary", elem_id="judge")
    answer = gr.HTML("", elem_id="judgement", container=False)
    _until_given([start], file, microphone)

    def judged(file, microphone, model, text, number, own):
        return trainer.judge(file or microphone, model, text or "", number, own)

    def example(number):
        text, found = trainer.example(number)
        return text, gr.HTML(found, visible=bool(found)), None, ""

    def reference(own, number):
        found = trainer.reference(own) if own else trainer.example(number)[1]
        return gr.HTML(found, visible=bool(found))

    asked = [file, microphone, model, text, number, own]
    start.click(judged, asked, answer, show_progress="minimal", api_visibility="private")
    model.change(lambda name: (gr.Textbox(info=trainer.hint(name)), ""), model, [text, answer], **quiet)
    number.input(example, number, [text, heard, own, answer], **quiet)
    for event in (own.upload, own.clear):
        event(reference, [own, number], heard, **quiet)


def _speakers(desk: Desk, mine: Sequence[str]) -> gr.Dropdown:
    """A list of speakers, as it is now; what was chosen stays."""
    return gr.Dropdown(desk.speakers(mine))
