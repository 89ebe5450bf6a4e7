"""Names of files and classes as text in figures: what they are, as wide as there is room."""

from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.textpath import text_to_path

CUT, BOX = "…", "□"


def plain(name: str) -> str:
    """The name as matplotlib shows it letter by letter: a dollar begins no formula, what the font lacks is a box."""
    known = get_font(findfont(FontProperties())).get_char_index
    return "".join(letter if letter.isprintable() and known(ord(letter)) else BOX for letter in name).replace(
        "$", r"\$"
    )


def shortened(name: str, width: float, size: float) -> str:
    """`plain`, shortened in its middle to a width.

    Args:
        name: any text.
        width: inches.
        size: of the letters, in points.
    """
    if text_width(name, size) <= width:
        return plain(name)
    low, high = 0, len(name)  # how many letters stay
    while high - low > 1:
        kept = (low + high) // 2
        low, high = (kept, high) if text_width(_cut(name, kept), size) <= width else (low, kept)
    return plain(_cut(name, low))


def text_width(name: str, size: float) -> float:
    """Inches that a name takes at most: on the grid of pixels letters are a little wider than their outlines."""
    text = plain(name).replace(r"\$", "$")
    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return 1.08 * float(width) / 72


def _cut(name: str, kept: int) -> str:
    # The end tells the frames of a sequence apart: it keeps more.
    front = kept * 2 // 5
    return name[:front] + CUT + name[len(name) - (kept - front) :]
