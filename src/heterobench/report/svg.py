"""Vector drawings inside a page: without what HTML knows already, and letters that all of them share."""

from __future__ import annotations

import re

from markupsafe import Markup

POINT = 4 / 3  # CSS pixels in a point, the unit of drawn figures
DIGITS = 2  # decimals of a position, in points
LETTER = re.compile(r'<path id="(DejaVu\w*-[\w-]+)" d="([^"]*)"([^>]*)/>')


class Drawings:
    """Embeds SVG files of matplotlib, and keeps the outlines of letters, which stand once in a page.

    What a drawing defines (clipping paths, marks) gets names of its own: two drawings may use the same ones, and what
    one defines may be lost to the other while it is folded away.
    """

    def __init__(self) -> None:
        self.letters: dict[str, str] = {}

    def embed(self, text: str, title: str, name: str) -> Markup:
        """The <svg> element of a file, with its natural width in a variable that the style sheet scales by."""
        text = text[text.index("<svg") :]
        for useless in (r"<metadata>.*?</metadata>", r"<!--.*?-->", r"<style.*?</style>", r'\sxmlns(?::\w+)?="[^"]*"'):
            text = re.sub(useless, "", text, flags=re.DOTALL)
        text = re.sub(r"\s+", " ", text.replace("xlink:href", "href"))
        text = LETTER.sub(self._keep, text)
        text = re.sub(r"<defs>\s*</defs>", "", text)
        text = re.sub(r'(\s(?:d|x|y|points|transform)=")([^"]*)"', _shorter, text)
        text = re.sub(r'style="([^"]*)"', lambda match: match[0].replace("; ", ";").replace(": ", ":"), text)
        used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
        text = re.sub(r'\sid="([^"]*)"', lambda match: match[0] if match[1] in used else "", text)
        prefix = re.sub(r"\W", "_", name)
        own = used - self.letters.keys()
        text = re.sub(
            r'(\sid="|href="#|url\(#)([^")]+)',
            lambda match: match[1] + (f"{prefix}-{match[2]}" if match[2] in own else match[2]),
            text,
        )
        text = re.sub(r">\s+<", "><", text)
        width = re.match(r'<svg[^>]*\swidth="([\d.]+)pt"', text)
        style = f' style="--w:{float(width[1]) * POINT:.0f}px"' if width else ""
        head = Markup('<svg role="img" aria-label="{}"').format(title)
        return head + Markup(style + text[len("<svg") :])

    def sprite(self) -> Markup:
        """The letters of all drawings, in an element that takes no room; empty where none was used."""
        if not self.letters:
            return Markup("")
        return Markup(f'<svg class="letters" aria-hidden="true"><defs>{"".join(self.letters.values())}</defs></svg>')

    def _keep(self, match: re.Match[str]) -> str:
        self.letters.setdefault(match[1], match[0])
        return ""


def _shorter(match: re.Match[str]) -> str:
    """Positions with fewer decimals; a scale keeps all of its."""
    if "scale" in match[2] and "translate" not in match[2]:
        return match[0]

    def number(found: re.Match[str]) -> str:
        return f"{float(found[0]):.{DIGITS}f}".rstrip("0").rstrip(".") if len(found[1]) > DIGITS else found[0]

    head, scale, tail = match[2].partition(" scale")
    return f'{match[1]}{re.sub(r"-?[0-9]*[.]([0-9]+)", number, head)}{scale}{tail}"'
