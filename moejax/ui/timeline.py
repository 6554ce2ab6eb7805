"""Who speaks when, as HTML: a lane for each speaker below the waveform, and the turns as a file."""

from __future__ import annotations

from collections.abc import Sequence

from moejax.diarize.turns import Turn, rttm
from moejax.ui.marks import Sound, escaped, file_link

# Of Okabe and Ito (2008), which the colour-blind tell apart; of more speakers some look alike
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
WIDTH, HEIGHT = 1000, 20  # of a lane, in its own units
NOBODY = "The diarizer hears nobody speak."


def speakers(turns: Sequence[Turn]) -> list[str]:
    """In the order in which they begin."""
    return list(dict.fromkeys(turn.speaker for turn in sorted(turns)))


def dot(speaker: str, known: Sequence[str]) -> str:
    """The mark of a speaker's colour."""
    colour = COLOURS[known.index(speaker) % len(COLOURS)] if speaker in known else "currentColor"
    return f'<i class="mj-dot" style="background:{colour}"></i>'


def lanes(turns: Sequence[Turn], sound: Sound) -> str:
    """A lane for each speaker, in step with the waveform; a click plays from there."""
    known = speakers(turns)
    rows = "".join(_lane(name, [turn for turn in turns if turn.speaker == name], known, sound) for name in known)
    return f'<div class="mj-lanes" role="group" aria-label="who speaks when">{rows}</div>' if rows else ""


def download(turns: Sequence[Turn], name: str) -> str:
    """A link that holds the turns as RTTM."""
    return file_link(f"{name}.rttm", "text/plain", rttm({"_".join(name.split()): turns}))


def _lane(name: str, turns: Sequence[Turn], known: Sequence[str], sound: Sound) -> str:
    scale = WIDTH / max(sound.seconds, 1e-3)
    colour = COLOURS[known.index(name) % len(COLOURS)]
    blocks = "".join(
        f'<rect x="{turn.start * scale:.1f}" y="2" height="{HEIGHT - 4}" fill="{colour}" '
        f'width="{(min(turn.end, sound.seconds) - turn.start) * scale:.1f}"></rect>'
        for turn in turns
    )
    total = sum(turn.end - turn.start for turn in turns)
    said = f"{escaped(name)}, {total:.1f} s in {len(turns)} turn{'s' * (len(turns) != 1)}"
    return (
        f'<div class="mj-lane"><span>{dot(name, known)}{said}</span>'
        f'<svg class="mj-wave mj-turns" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{said}; a click plays from there" data-seconds="{sound.seconds:.3f}">{blocks}'
        f'<line class="mj-head" x1="0" x2="0" y1="0" y2="{HEIGHT}"></line></svg></div>'
    )
