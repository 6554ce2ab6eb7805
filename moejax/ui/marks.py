"""What every part of a page stands on: text that is never markup, sentences for a person, links that hold files."""

import base64
import html
from typing import NamedTuple

import numpy as np


class Sound(NamedTuple):
    """A recording as a page plays it: its address, samples [S] at 16 kHz, seconds."""

    address: str
    wave_S: np.ndarray
    seconds: float


def escaped(text: str) -> str:
    """Text that is nothing but text in HTML, in an attribute, and in the templates that the page's library fills."""
    found = html.escape(text)
    for mark in "{}$`\\":
        found = found.replace(mark, f"&#{ord(mark)};")
    return found


def refusal(sentence: str) -> str:
    """What is wrong, for the eye and for a screen reader."""
    return f'<p class="mj-wrong" role="alert">{escaped(sentence)}</p>'


def told(sentence: str) -> str:
    """What went well."""
    return f'<p class="mj-told" role="status">{escaped(sentence)}</p>'


def growing(text: str) -> str:
    """What is known of a text while a recording is being read."""
    return f'<p class="mj-growing" role="status">{escaped(text.strip()) or "Listening"} …</p>'


def file_link(file: str, media: str, content: str) -> str:
    """A link that holds the file itself: nothing is kept for it."""
    data = base64.b64encode(content.encode()).decode()
    return f'<a download="{escaped(file)}" href="data:{media};base64,{data}">{escaped(file.rpartition(".")[2])}</a>'
