"""HTML of what the report is made of: the Markdown that the stages write, pictures, sections, the page around them."""

import base64
import html
import re

STYLE = """
:root{color-scheme:light;--ink:#1d2126;--soft:#5c646e;--line:#dfe3e7;--accent:#c8324a}
*{box-sizing:border-box}
body{margin:0;background:#fff;color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1100px;margin:0 auto;padding:20px 16px 60px}
h1{font-size:1.5rem;margin:.2em 0}
h2{font-size:1.2rem;margin:2em 0 .5em;padding-top:.5em;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:1.5em 0 .4em}
.lead{font-size:1.08rem;border-left:4px solid var(--accent);padding:.3em 0 .3em .8em;margin:1em 0}
.soft{color:var(--soft);font-size:.88rem}
nav a{margin-right:1em;white-space:nowrap}a{color:#1f5fa8}
.wide{overflow-x:auto;-webkit-overflow-scrolling:touch;margin:.6em 0}
table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums}
th,td{padding:.3em .6em;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap;vertical-align:top}
th{font-weight:600;color:var(--soft);vertical-align:bottom;white-space:normal}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:#fff}
td.text,th.text{text-align:left;white-space:normal;min-width:11em}
tr.judged td{background:#fdf1f3;font-weight:600}td.best{color:#1d7a51;font-weight:700}
.bounds{color:var(--soft);font-weight:400;font-size:.92em}
figure{margin:1em 0}figure img{display:block;width:100%;max-width:720px;min-width:480px;height:auto}
figure.map img{max-width:none;min-width:900px}
figcaption{color:var(--soft);font-size:.88rem;margin-top:.3em}
details{margin:.6em 0}summary{cursor:pointer;color:#1f5fa8}
@media(max-width:600px){
th:first-child,td:first-child{white-space:normal;overflow-wrap:break-word;min-width:7em;max-width:45vw}
figure.plot .wide{margin:.6em -16px}figure.plot img{min-width:0}
}
code{background:#f3f4f6;padding:.05em .3em;border-radius:3px;font-size:.92em}
"""


def document(title: str, lead: str, sections: dict[str, str]) -> str:
    """The whole page; `sections` maps titles to HTML, and empty ones are left out."""
    present = {_anchor(name): (html.escape(name), content) for name, content in sections.items() if content}
    links = "".join(f'<a href="#{anchor}">{name}</a> ' for anchor, (name, _) in present.items())
    body = [f'<p class="lead">{html.escape(lead)}</p>']
    body += [
        f'<section><h2 id="{anchor}">{name}</h2>{content}</section>' for anchor, (name, content) in present.items()
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{html.escape(title)}</h1><nav class='soft'>{links}</nav>" + "\n".join(body) + "</main></body></html>\n"
    )


def figure(png: bytes, caption: str, kind: str = "plot") -> str:
    """A picture inside the page; `kind` is plot, or map for one that is wide and looked at in detail."""
    data, caption = base64.b64encode(png).decode(), html.escape(caption)
    image = f'<div class="wide"><img alt="{caption}" src="data:image/png;base64,{data}"></div>'
    return f'<figure class="{kind}">{image}<figcaption>{caption}</figcaption></figure>'


def player(sound: bytes, caption: str) -> str:
    """A recording inside the page, WAV or FLAC, that plays on request."""
    kind, data = "flac" if sound.startswith(b"fLaC") else "wav", base64.b64encode(sound).decode()
    audio = f'<audio controls preload="none" src="data:audio/{kind};base64,{data}"></audio>'
    return f"<figure>{audio}<figcaption>{html.escape(caption)}</figcaption></figure>"


def paragraphs(lines: list[str]) -> str:
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def folded(summary: str, content: str) -> str:
    """Content that is shown on request."""
    return f"<details><summary>{html.escape(summary)}</summary>{content}</details>"


def table(rows: str) -> str:
    """A table that scrolls by itself where it is wider than the page."""
    return f'<div class="wide"><table>{rows}</table></div>'


def markdown(text: str, *, level: int = 0, skip_title: bool = False) -> str:
    """HTML of the Markdown that the stages write: headings, paragraphs, lists, pipe tables, `code` and **bold**.

    `level` is added to the depth of headings; `skip_title` leaves out the first heading of depth one.
    """
    blocks, lines = [], text.splitlines()
    while lines:
        line = lines.pop(0)
        if heading := re.match(r"(#+) (.*)", line):
            depth = len(heading[1])
            if skip_title and depth == 1:
                continue
            depth = min(depth + level - (1 if skip_title else 0), 6)
            blocks.append(f"<h{depth}>{_inline(heading[2])}</h{depth}>")
        elif line.startswith("|"):
            taken = [line]
            while lines and lines[0].startswith("|"):
                taken.append(lines.pop(0))
            blocks.append(_pipe_table(taken))
        elif line.startswith(("- ", "* ")):
            items = [line]
            while lines and lines[0].startswith(("- ", "* ")):
                items.append(lines.pop(0))
            blocks.append("<ul>" + "".join(f"<li>{_inline(i[2:])}</li>" for i in items) + "</ul>")
        elif line.strip():
            taken = [line]
            while lines and lines[0].strip() and not re.match(r"#+ |\||[-*] ", lines[0]):
                taken.append(lines.pop(0))
            blocks.append(f"<p>{_inline(' '.join(taken))}</p>")
    return "\n".join(blocks)


def _inline(text: str) -> str:
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
    return re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", text)


def _pipe_table(lines: list[str]) -> str:
    cells = [[c.strip().replace("\\|", "|") for c in re.split(r"(?<!\\)\|", line.strip())[1:-1]] for line in lines]
    ruled = len(cells) > 1 and all(re.fullmatch(r":?-+:?", c) for c in cells[1])
    left = [not c.endswith(":") for c in cells[1]] if ruled else [True] * len(cells[0])
    body = cells[2:] if ruled else cells
    out = _html_row(cells[0], left, "th") if ruled else ""
    return table(out + "".join(_html_row(r, left, "td") for r in body))


def _html_row(cells: list[str], left: list[bool], tag: str) -> str:
    marks = [' class="text"' if i and text else "" for i, text in enumerate(left)]
    return "<tr>" + "".join(f"<{tag}{m}>{_inline(c)}</{tag}>" for c, m in zip(cells, marks, strict=False)) + "</tr>"


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")
