"""A sound from the reader's browser: a file of any size, or the microphone.

ipywidgets' own FileUpload sends a file in one message, and Jupyter cuts the connection, without a word
to the reader, at 10 MiB: two minutes of a CD. This widget sends pieces, each after the kernel has written
the one before to disk. The microphone needs no other library: the page's own audio interface gives its
samples as they are, with the gain control and noise removal of video calls turned off.
"""

import tempfile
from pathlib import Path

import anywidget

from serkit.errors import SerkitError

MAX_BYTES = 2 * 2**30  # of one file; a day of telephone speech, three hours of a CD


class SoundInput(anywidget.AnyWidget):
    """Two buttons, *Choose a file* and *Record*.

    Parameters
    ----------
    on_sound : callable
        Called with the path of the sound, which is deleted afterwards, and the name that the reader knows.
        Its SerkitError is shown beside the buttons.

    Notes
    -----
    Classes for style sheets and tests: ``serkit-sound`` around ``serkit-file`` (the input),
    ``serkit-record`` (the button) and ``serkit-note`` (what is going on).
    """

    _esm = Path(__file__).with_suffix(".js")
    _css = """
    .serkit-sound { display: flex; flex-wrap: wrap; align-items: center; gap: 8px; }
    .serkit-sound .serkit-choose { line-height: var(--jp-widgets-inline-height, 28px); text-align: center; }
    """

    def __init__(self, on_sound):
        super().__init__()
        self._on_sound = on_sound
        self._folder = self._name = None  # while a sound is on its way
        self.add_class("serkit-sound")
        self.on_msg(lambda _, content, buffers: self.send(self.receive(content, buffers)))

    def receive(self, content, buffers=()):
        """Take in one message of the browser.

        Parameters
        ----------
        content : dict
            ``kind`` is begin (with ``name`` and ``size`` in bytes), piece or end.
        buffers : sequence of bytes
            The bytes of a piece.

        Returns
        -------
        dict
            The answer: empty, or why this sound is ``refused``.
        """
        try:
            {"begin": self._begin, "piece": self._add, "end": self._finish}[content["kind"]](content, buffers)
        except (SerkitError, OSError) as error:
            self._forget()
            reason = f"can't be stored ({error.strerror})" if isinstance(error, OSError) else error
            return {"refused": str(reason)}
        return {}

    def _begin(self, content, _):
        self._forget()
        self._name = content["name"]
        if content["size"] > MAX_BYTES:
            raise SerkitError(
                f"{self._name}: {content['size'] / 2**30:.1f} GiB, expected at most {MAX_BYTES // 2**30} GiB; "
                "copy it to this machine and give its path"
            )
        self._folder = tempfile.TemporaryDirectory(prefix="serkit-")
        self._path.touch()

    def _add(self, _, buffers):
        self._check_begun()
        with open(self._path, "ab") as file:
            for piece in buffers:
                file.write(piece)

    def _finish(self, *_):
        self._check_begun()
        try:
            self._on_sound(self._path, self._name)
        finally:
            self._forget()

    @property
    def _path(self):
        return Path(self._folder.name) / "sound"

    def _check_begun(self):
        if self._folder is None:
            raise SerkitError("the beginning of this sound is lost; was the cell run again? Choose it again")

    def _forget(self):
        if self._folder is not None:
            self._folder.cleanup()
        self._folder = None
