"""A page to listen to: each clip's log-mel image, what of it its class hangs on, and a playhead that moves with the
sound. One file, nothing loaded from anywhere.
"""

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence

import numpy as np
import soundfile

from moejax.report.markup import document

HOW = "where the logit of that class would change most if the sound did, silence not excepted (gradients)"
STYLE = """<style>
.clip{margin:1.2em 0}.clip canvas{display:block;width:100%;height:180px;cursor:pointer;border:1px solid var(--line);
image-rendering:pixelated}
.clip audio{width:100%;margin-top:.3em}.clip label{font-size:.88rem;color:var(--soft)}
</style>"""
SCRIPT = """<script>
"use strict";
for (const clip of document.querySelectorAll(".clip")) {
  const said = JSON.parse(clip.querySelector("script").textContent);
  const canvas = clip.querySelector("canvas"), audio = clip.querySelector("audio"), shown = clip.querySelector("input");
  const cells = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const image = cells(said.image), saliency = said.saliency ? cells(said.saliency) : null;
  const picture = document.createElement("canvas");
  picture.width = canvas.width = said.frames;
  picture.height = said.mels;
  canvas.height = 180;
  const paint = () => {
    const context = picture.getContext("2d"), data = context.createImageData(said.frames, said.mels);
    for (let m = 0; m < said.mels; m++) for (let n = 0; n < said.frames; n++) {
      const from = m * said.frames + n, to = 4 * ((said.mels - 1 - m) * said.frames + n), grey = image[from];
      const hot = saliency && (!shown || shown.checked) ? saliency[from] / 255 : 0;
      data.data[to] = grey + (255 - grey) * hot;
      data.data[to + 1] = data.data[to + 2] = grey * (1 - hot);
      data.data[to + 3] = 255;
    }
    context.putImageData(data, 0, 0);
  };
  const draw = () => {
    const context = canvas.getContext("2d"), x = Math.min(1, audio.currentTime / said.seconds) * canvas.width;
    context.imageSmoothingEnabled = false;
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    context.fillStyle = "#20d080";
    context.fillRect(x - 0.5, 0, 1, canvas.height);
    canvas.dataset.playhead = x.toFixed(2);
    if (!audio.paused && !audio.ended) requestAnimationFrame(draw);
  };
  for (const event of ["play", "seeked", "timeupdate", "ended"]) audio.addEventListener(event, draw);
  canvas.addEventListener("click", event => {
    audio.currentTime = said.seconds * event.offsetX / canvas.clientWidth;
    draw();
  });
  if (shown) shown.addEventListener("change", () => { paint(); draw(); });
  paint();
  draw();
}
</script>"""


def page(pictures: Mapping[str, np.ndarray], names: Sequence[str], title: str) -> str:
    """HTML of `pictures`: wave [U, S] in [-1, 1] at `rate`, image [U, M, N] in decibels, label [U], `hop`, and where a
    network was asked saliency [U, M, N], at least 0, its name `model`, and maybe in words `how` that was found.
    """
    seen, clips = pictures.get("saliency"), {}
    for number, label in enumerate(pictures["label"]):
        hot = None if seen is None else seen[number]
        wave_S, rate = pictures["wave"][number], int(pictures["rate"])
        name = f"{names[int(label)]}" if names[int(label)] not in clips else f"{names[int(label)]} {number}"
        clips[name] = _clip(wave_S, rate, pictures["image"][number], hot, int(pictures["hop"]))
    lead = "Press play; click into a picture to go there."
    if seen is not None:
        lead += f" Red is what the class hangs on for {pictures['model']}: {pictures.get('how', HOW)}."
    return document(title, lead, clips).replace("</main>", f"</main>{STYLE}{SCRIPT}")


def _clip(wave_S, rate, image_MN, saliency_MN, hop) -> str:
    low, high = float(image_MN.min()), float(image_MN.max())
    grey = np.rint(255 * (image_MN - low) / max(high - low, 1e-9)).astype(np.uint8)
    said = {"mels": image_MN.shape[0], "frames": image_MN.shape[1], "image": _text(grey.tobytes())}
    said["seconds"] = image_MN.shape[1] * hop / rate
    box = ""
    if saliency_MN is not None:
        # the strongest percent is full red, and faint cells stay as they are
        hot = np.clip(saliency_MN / max(float(np.quantile(saliency_MN, 0.99)), 1e-20), 0, 1) ** 1.5
        said["saliency"] = _text(np.rint(255 * hot).astype(np.uint8).tobytes())
        box = '<label><input type="checkbox" checked> what decides</label>'
    out = io.BytesIO()
    soundfile.write(out, wave_S, rate, format="WAV", subtype="PCM_16")
    source = f"data:audio/wav;base64,{_text(out.getvalue())}"
    facts = html.escape(json.dumps(said), quote=False)
    return (
        f'<div class="clip"><canvas></canvas><audio controls preload="auto" src="{source}"></audio>{box}'
        f'<script type="application/json">{facts}</script></div>'
    )


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
