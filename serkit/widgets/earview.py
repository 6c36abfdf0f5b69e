"""Confusion-matrix analysis by ear: pick a cell of the matrix, hear and see the utterances behind it."""

from IPython import get_ipython
from IPython.display import display

from serkit.errors import ParameterError, SerkitError
from serkit.widgets import listening
from serkit.widgets.earboard import EarBoard
from serkit.widgets.earsummary import summary

MAX_PLAYERS = 20
NO_WIDGETS = (
    "The matrix to click is left out: this was run without a notebook page that could show it (papermill, for "
    "instance). In a page that can, show(widgets=True) shows it."
)
IN_PLAIN = "A matrix to click stands here in JupyterLab, while the kernel runs."


class Listening:
    """What notebook 06 shows of the mistakes: a view to click, and a summary for a page without a kernel.

    Parameters
    ----------
    run : serkit.runs.Run or str
        What is shown first; other runs can be chosen in the view.
    variant : str, optional
        Default: that of the ``Run``, or the first there is.
    mistakes : int, 0 to 20, optional
        How many of the surest mistakes get a player in the summary.

    Raises
    ------
    ParameterError
        If ``mistakes`` is out of range. Whatever is missing on disk is said by ``show``.

    Examples
    --------
    ``listen = Listening(run)``, and as the last line of a cell: ``listen.show()``.
    """

    def __init__(self, run, *, variant="", mistakes=4):
        if isinstance(mistakes, bool) or not isinstance(mistakes, int) or not 0 <= mistakes <= MAX_PLAYERS:
            raise ParameterError(
                f"mistakes={mistakes!r} players, expected a whole number from 0 to {MAX_PLAYERS}"
            )
        self.run = getattr(run, "name", run)
        experiment = getattr(run, "experiment", None)
        self.variant = variant or (experiment.variant if experiment else "")
        self.mistakes = mistakes
        self.board = None  # the widgets, once they have been shown

    def show(self, widgets=None):
        """Display the view, and below it the summary.

        Parameters
        ----------
        widgets : bool, optional
            Whether to show what can be clicked. Default: if the cell was run from a notebook page.
            papermill and nbconvert run it from nowhere, and would keep a picture of dead buttons.
        """
        live = is_live() if widgets is None else widgets
        if live:
            self.board = EarBoard(self.run, self.variant)
            display(self.board.box._repr_mimebundle_() | {"text/plain": IN_PLAIN}, raw=True)
        display(self.summary(live), raw=True)

    def summary(self, live=False):
        """The summary as HTML and plain text; a sentence if there is nothing to sum up."""
        try:
            variant = self.variant or listening.variants_on_disk(self.run)[0]
            table, _, missing = listening.load_utterances(self.run, variant)
        except SerkitError as error:
            return {"text/plain": str(error)}
        heading = f"Run {self.run}, variant {variant}: {len(table)} predictions of the test sets."
        heading = " ".join([heading, *[missing] * bool(missing), *[NO_WIDGETS] * (not live)])
        return summary(table, heading=heading, n_players=self.mistakes, unfolded=not live)


def is_live():
    """Whether the cell being run was sent by a notebook page (which names the cell) and not by a program."""
    kernel = getattr(get_ipython(), "kernel", None)
    request = kernel.get_parent() if kernel else {}
    return "cellId" in (request.get("metadata") or {})
