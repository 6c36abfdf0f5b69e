"""Every decision about the features as one named switch.

``PUBLISHED`` is what the paper's code computes, ``CORRECTED`` what it would compute without
its mistakes. Each mistake is a *deviation* with an id, D1 to D5, and can be mended alone:

>>> named("published+D2").spectrogram_fill
'floor'
>>> named("corrected-D2").deviations
('D1', 'D3', 'D4', 'D5')
"""

import dataclasses
import re
from collections import ChainMap
from dataclasses import dataclass
from typing import Literal, get_args

from serkit.constants import PREEMPHASIS, TOP_DB
from serkit.errors import ParameterError, check_choice, check_range, shown


@dataclass(frozen=True)
class Recipe:
    """How an utterance becomes the three views of its segments; the defaults are the published ones."""

    name: str = "published"
    preemphasis: float = PREEMPHASIS  # y[n] = x[n] - preemphasis * x[n-1]; 0 turns it off
    top_db: float = TOP_DB  # dB below the peak at which spectrogram and MFCC levels are cut off
    edge: Literal["reflect", "zero"] = "reflect"  # what the analysis window sees beyond the utterance
    waveform_padding: Literal["before", "after"] = "before"  # D1: the other two views pad after
    mask_padding: bool = False  # D1: padded wav2vec frames get no weight in the co-attention
    spectrogram_fill: Literal["peak", "floor"] = "peak"  # D2: 0 dB is the loudest a pixel can be
    last_piece: Literal["padded", "overlapping"] = "padded"  # D3: overlapping = last 3 s of the utterance
    preemphasis_waveform: bool = True  # D4: wav2vec 2.0 was trained on plain waveforms
    statistics_over_padding: bool = True  # D5: mean, variance, minimum, maximum include padding
    unit_variance: bool = True  # of the waveform, at zero mean; False: as recorded, if the encoder wants that

    def __post_init__(self):
        check_range("preemphasis", self.preemphasis, 0, 0.999)
        check_range("top_db", self.top_db, 0.1, 1000)
        if self.mask_padding and self.waveform_padding == "before":
            raise ParameterError("mask_padding=True needs waveform_padding='after': it counts from the start")
        for field in dataclasses.fields(self):
            if allowed := get_args(field.type):
                check_choice(field.name, getattr(self, field.name), allowed)

    @property
    def deviations(self):
        """Ids of the mistakes that this recipe has mended, in order."""
        return tuple(key for key, switches in DEVIATIONS.items() if switches.items() <= vars(self).items())

    @property
    def extraction(self):
        """The switches that act on a whole utterance. All others act when it is cut into segments."""
        return {"preemphasis": float(self.preemphasis), "top_db": float(self.top_db), "edge": self.edge}

    def with_deviation(self, key, mended=True):
        """The same recipe with one deviation mended, or brought back."""
        check_choice("deviation", key, DEVIATIONS)
        switches = DEVIATIONS[key]
        published = {field: getattr(PUBLISHED, field) for field in switches}
        return dataclasses.replace(self, **(switches if mended else published))


# id of each mistake of the published procedure -> the switches that mend it
DEVIATIONS = {
    # padding on the same side in all views, without weight in the co-attention
    "D1": {"waveform_padding": "after", "mask_padding": True},
    # spectrogram padded with silence, not with its peak
    "D2": {"spectrogram_fill": "floor"},
    # last piece of a long utterance: its last 3 s, unpadded
    "D3": {"last_piece": "overlapping"},
    # no pre-emphasis before wav2vec 2.0
    "D4": {"preemphasis_waveform": False},
    # normalisation statistics leave padding out
    "D5": {"statistics_over_padding": False},
}  # D6, the selection of the checkpoint, is no feature: see serkit.folds

NAMES = (  # regular expression, and in words
    "(published|corrected)((?:[+-]D[1-5])*)",
    f"published or corrected, then changes such as +D2 or -D3 (known: {', '.join(DEVIATIONS)})",
)
PUBLISHED = Recipe()
CORRECTED = Recipe(name="corrected", **ChainMap(*DEVIATIONS.values()))


def named(name):
    """Look a recipe up by name.

    Parameters
    ----------
    name : str
        ``published`` or ``corrected``, followed by any number of ``+D2`` (mended) or ``-D2``
        (brought back).

    Returns
    -------
    Recipe
        Its name holds each change once, in order, and none that changes nothing: what computes the same is
        called the same.

    Raises
    ------
    ParameterError
        If the name does not parse.

    Examples
    --------
    >>> named("published+D3+D2-D4").name
    'published+D2+D3'
    """
    pattern, expected = NAMES
    match = re.fullmatch(pattern, name) if isinstance(name, str) else None
    if not match:
        raise ParameterError(f"recipe={shown(name)}, expected {expected}")
    base, change = (PUBLISHED, "+") if match[1] == "published" else (CORRECTED, "-")
    result = base
    for sign, key in re.findall(r"([+-])(D\d)", match[2]):
        result = result.with_deviation(key, mended=sign == "+")
    changed = sorted({*base.deviations} ^ {*result.deviations})
    return dataclasses.replace(result, name=match[1] + "".join(change + key for key in changed))
