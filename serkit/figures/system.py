"""The system on one page, ``system.svg`` beside this file, with the part that a notebook is about in full colour."""

import base64
import re
from pathlib import Path

from IPython.display import HTML

from serkit.errors import check_choice

PALE = 0.4  # opacity of what is not lit
# what is lit, by the part of the system that a notebook is about
PARTS = {
    "corpus": ("input", "emotions"),
    "mfcc": ("mfcc",),
    "spectrogram": ("spectrogram",),
    "speech": ("speech",),
    "coattention": ("coattention",),
    "result": ("result", "emotions"),
    "ablations": ("spectrogram", "mfcc", "speech", "coattention"),
    "predict": ("input", "spectrogram", "mfcc", "speech", "coattention", "result", "emotions"),
}


def show_system(lit: str = "predict") -> HTML:
    """The system in a notebook, for the last line of a cell.

    Parameters
    ----------
    lit : str
        A name of ``PARTS``, or several joined by ``+``: they are in full colour, the rest is pale.

    Raises
    ------
    ParameterError
        If a name is unknown.
    """
    shown = {"always"}
    for name in lit.split("+"):
        check_choice("lit", name, PARTS)
        shown |= {*PARTS[name]}
    svg = Path(__file__).with_name("system.svg").read_text(encoding="utf-8")
    fade = re.compile(r'<g class="(\w+)"')
    svg = fade.sub(lambda group: group[0] + ("" if group[1] in shown else f' opacity="{PALE}"'), svg)
    alt = f"{re.search(r'<title>(.*)</title>', svg)[1]} In full colour: {lit.replace('+', ', ')}."
    data = base64.b64encode(svg.encode()).decode()
    style = "width: 100%; max-width: 800px"
    return HTML(f'<img alt="{alt}" style="{style}" src="data:image/svg+xml;base64,{data}">')
