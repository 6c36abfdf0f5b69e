"""The whole system on one page, as SVG; ``make system`` writes what this prints to ``serkit/figures/system.svg``.

Each view keeps its colour (``VIEW_COLOURS``) from its box to the vector that is made of it: spectrogram sky blue,
MFCC purple, speech (the waveform) green. The co-attention is yellow, and the emotions have the colours that they
have in every figure. A number in brackets is that of an equation in the notebooks. The class of a group says which
part of the system it belongs to: notebooks let the other parts fade.
"""

import re

from serkit.constants import LABELS
from serkit.figures.saving import EMOTION_COLOURS, VIEW_COLOURS, readable_on

WIDTH, HEIGHT = 720, 490  # units; text is 12 and 13 of them high, 8 to 9 pt on a page 7 in wide
INK, GREY, YELLOW = "#222222", "#cccccc", "#F0E442"
SPECTROGRAM, MFCC, SPEECH = VIEW_COLOURS.values()
FONT = "'DejaVu Sans', Verdana, Helvetica, Arial, sans-serif"
# group, x, y, width, height, colour, number of the equation, lines of text; the first one is bold
BOXES = (
    ("input", 20, 14, 150, 48, GREY, "", ("3 s of speech", "48,000 samples")),
    ("spectrogram", 20, 88, 200, 44, SPECTROGRAM, "", ("log spectrogram", "200 × 300")),
    ("mfcc", 260, 88, 200, 44, MFCC, "", ("MFCC", "300 × 40")),
    ("speech", 500, 88, 200, 44, SPEECH, "", ("waveform", "48,000 samples")),
    ("spectrogram", 20, 158, 200, 44, SPECTROGRAM, "(1)", ("CNN (AlexNet)", "h_s ∈ ℝ^H")),
    ("mfcc", 260, 158, 200, 44, MFCC, "(2)", ("BiLSTM", "h_m ∈ ℝ^H")),
    ("speech", 500, 158, 200, 44, SPEECH, "(3)", ("wav2vec 2.0", "V ∈ ℝ^{T′×D}")),
    ("coattention", 100, 240, 300, 60, YELLOW, "(4)",
     ("co-attention", "[h_s; h_m] → linear → ReLU", "weights a ∈ ℝ^{T′}")),
    ("coattention", 480, 240, 220, 60, YELLOW, "(5)",
     ("weighted sum", "c = Σ_t a_t V_t ∈ ℝ^D", "h_w = ReLU(W_w c + b_w) ∈ ℝ^H")),
    ("result", 20, 338, 680, 28, GREY, "", ("joined: [h_s; h_m; h_w] ∈ ℝ^{3H}",)),
    ("result", 220, 390, 280, 44, GREY, "(6)", ("classifier", "W_1 and W_2 with ReLU; W_3, softmax → p")),
    *(("emotions", 180 + 90 * n, 458, 90, 24, EMOTION_COLOURS[label], "", (label,)) for n, label in enumerate(LABELS)),
)  # fmt: skip
# group, colour, from x, y to x, y; whatever crosses another line is drawn after it
ARROWS = (
    ("spectrogram", SPECTROGRAM, 120, 62, 120, 88), ("mfcc", MFCC, 360, 62, 360, 88),
    ("speech", SPEECH, 600, 62, 600, 88), ("spectrogram", SPECTROGRAM, 120, 132, 120, 158),
    ("mfcc", MFCC, 360, 132, 360, 158), ("speech", SPEECH, 600, 132, 600, 158),
    ("spectrogram", SPECTROGRAM, 160, 202, 160, 240), ("spectrogram", SPECTROGRAM, 60, 202, 60, 338),
    ("mfcc", MFCC, 330, 202, 330, 240), ("mfcc", MFCC, 440, 202, 440, 338),
    ("speech", SPEECH, 600, 202, 600, 240), ("coattention", INK, 400, 270, 480, 270),
    ("coattention", INK, 600, 300, 600, 338), ("result", INK, 360, 366, 360, 390),
    ("result", INK, 360, 434, 360, 458),
)  # fmt: skip
NAMES = (  # beside the arrows: group, x, y, text
    ("spectrogram", 168, 226, "h_s"), ("spectrogram", 68, 226, "h_s"), ("mfcc", 338, 226, "h_m"),
    ("mfcc", 448, 226, "h_m"), ("speech", 608, 226, "V"), ("coattention", 418, 262, "a"),
    ("coattention", 608, 324, "h_w"), ("emotions", 552, 474, "four emotions"), ("always", 20, 408, "as published:"), ("always", 20, 425, "H = 128, T′ = 149, D = 768"),
)  # fmt: skip
ALT = (
    "The system on one page. 3 s of speech become a log spectrogram, MFCC and a waveform; a CNN, a BiLSTM and "
    "wav2vec 2.0 read one each. The vectors of the first two, joined, give the co-attention's weights, which sum up "
    "the frames of wav2vec 2.0. All three vectors are joined and classified as one of four emotions."
)


def system_svg() -> str:
    """SVG text that loads nothing from elsewhere; its background is white in any theme."""
    drawn = [(group, _arrow(*arrow)) for group, *arrow in ARROWS]
    drawn += [(group, _box(*box)) for group, *box in BOXES]
    drawn += [("input", _sound()), *((group, _text(x, y, text)) for group, x, y, text in NAMES)]
    parts = (f'<g class="{group}">{svg}</g>' for group, svg in drawn)
    return "\n".join((
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="{FONT}" font-size="12" fill="{INK}">',
        f"<title>{ALT}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="12" fill="white"/>', *parts, "</svg>\n",
    ))  # fmt: skip


def _box(x, y, width, height, colour, equation, lines):
    ink = readable_on(colour)
    middle, top = x + width / 2, y + height / 2 - 8 * len(lines) + 12.5
    svg = f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="5" fill="{colour}" stroke="{INK}"/>'
    for number, line in enumerate(lines):
        bold = "" if number else ' font-weight="bold" font-size="13"'
        svg += _text(middle, top + 16 * number, line, f' text-anchor="middle" fill="{ink}"{bold}')
    return svg + (_text(x + width - 8, y + 17, equation, ' text-anchor="end"') if equation else "")


def _text(x, y, text, more=""):
    """One line; ``_`` lowers and ``^`` raises what follows: a character, or what stands in braces."""
    svg, before = "", 0
    for mark, inner, plain in re.findall(r"([_^])(\{[^}]*\}|.)|([^_^]+)", text):
        level = {"_": 3, "^": -4}.get(mark, 0)
        size = ' font-size="10"' if mark else ""
        svg += f'<tspan dy="{level - before}"{size}>{inner.strip("{}") or plain}</tspan>'
        before = level
    return f'<text x="{x:g}" y="{y:g}"{more}>{svg}</text>'


def _arrow(colour, x, y, to_x, to_y):
    """A straight arrow down or to the right, with a white edge where it crosses another."""
    down = to_x == x
    line = f"M{x} {y}L{to_x - 5 * (not down)} {to_y - 5 * down}"
    head = f"M{to_x} {to_y}l-5 -8h10z" if down else f"M{to_x} {to_y}l-8 -5v10z"
    return (
        f'<path d="{line}" stroke="white" stroke-width="6"/><path d="{line}" stroke="{colour}" stroke-width="2.5"/>'
        f'<path d="{head}" fill="{colour}"/>'
    )


def _sound():
    """A waveform of four syllables, beside the first box."""
    heights = [2 + 15 * abs((n % 32) * (32 - n % 32) / 256) * (1 + n % 3) / 3 for n in range(128)]
    line = "".join(f"M{181 + 4 * n} {38 - height:.1f}v{2 * height:.1f}" for n, height in enumerate(heights))
    frame = f'<rect x="170" y="14" width="530" height="48" rx="5" fill="white" stroke="{INK}"/>'
    return f'{frame}<path d="{line}" stroke="{INK}" stroke-width="1.5"/>'


if __name__ == "__main__":
    print(system_svg(), end="")
