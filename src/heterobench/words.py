"""Words in figures: how wide they are, and what is drawn of those that are too long. In full they stand in tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

FAMILY = "DejaVu Sans"  # comes with matplotlib: the same letters on every machine
SIZE = 9.5  # points
NAME = 2.0  # inches that the name of a method takes in a figure, at most
CUT = "…"
LONGEST = 400  # letters that are measured; nothing longer fits anywhere


@cache
def width(text: str, size: float = SIZE) -> float:
    """Inches that the longest line of a text takes in the font of all figures, with a little to spare."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=FAMILY, size=size)
    lines = [line for line in text.split("\n") if line.strip()]
    inches = [text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] / 72 for line in lines]
    return 1.06 * max(inches, default=0.0)  # letters on a screen are set to whole pixels


def widest(texts: Iterable[str], size: float = SIZE) -> float:
    return max((width(text, size) for text in texts), default=0.0)


def fitted(text: str, inches: float, size: float = SIZE, end: str = "") -> str:
    """Text and `end` in one line of at most that width: where they are wider, the text loses its middle.

    Heads and tails of names tell them apart: variants differ in either.
    """
    text = " ".join(text.split())
    if len(text) <= LONGEST and width(text + end, size) <= inches:
        return text + end
    few, many = 0, min(len(text), LONGEST) - 1
    while few < many:
        kept = (few + many + 1) // 2
        few, many = (kept, many) if width(_without_middle(text, kept) + end, size) <= inches else (few, kept - 1)
    return _without_middle(text, few) + end


def _without_middle(text: str, kept: int) -> str:
    head = (2 * kept + 2) // 3
    return text[:head].rstrip() + CUT + text[len(text) - (kept - head) :].lstrip()


def names(titles: Sequence[str], inches: float = NAME, size: float = SIZE) -> list[str]:
    """Titles that fit beside lines and points, all different where the titles are: equal remainders get numbers."""
    made: list[str] = []
    for title in titles:
        name, number = fitted(title, inches, size), 1
        while CUT in name and name in made and title not in titles[: len(made)]:
            number += 1
            name = fitted(title, inches, size, f" ({number})")
        made.append(name)
    return made


def wrapped(text: str, inches: float, size: float = SIZE, most: int | None = None) -> str:
    """Text in lines that are no wider than that, long words broken; at most `most` lines, of which the last is cut."""
    lines = [""]
    for word in text[: LONGEST * (most or len(text))].split():
        longer = f"{lines[-1]} {word}".strip()
        if width(longer, size) <= inches:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        while width(word, size) > inches and len(word) > 1:
            kept = next((n for n in range(min(len(word) - 1, LONGEST), 1, -1) if width(word[:n], size) <= inches), 1)
            lines[-1:] = [word[:kept], ""]
            word = word[kept:]
        lines[-1] = word
    if most and len(lines) > most:
        rest = " ".join(lines[most - 1 :])
        lines[most - 1 :] = [fitted(rest, inches, size)]
    return "\n".join(lines)
