"""Being asked to stop, or time to save: said at the end of a step, where the state is whole."""

import signal
import threading
import time

import torch

NOTHING, SAVE, STOP = 0, 1, 2


class Interrupts:
    """Turns Ctrl-C and SIGTERM (a cluster's time limit) into a question the training loop asks.

    A second Ctrl-C does not wait.

    Parameters
    ----------
    accelerator : accelerate.Accelerator
        Its processes agree on the answer.
    every_s : float
        Seconds between two answers ``SAVE``.
    """

    def __init__(self, accelerator, every_s):
        self.accelerator = accelerator
        self.every_s = every_s
        self.signal = None  # the one that came
        self._before = {}
        self._saved = time.monotonic()

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():  # elsewhere signals can't be caught
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, _):
        if self.signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def due(self):
        """``STOP``, ``SAVE`` or ``NOTHING``; the same in every process."""
        answer = SAVE if time.monotonic() - self._saved >= self.every_s else NOTHING
        if self.signal is not None:
            answer = STOP
        if self.accelerator.num_processes > 1:
            mine = torch.tensor([answer], device=self.accelerator.device)
            answer = int(self.accelerator.gather(mine).max())
        if answer:
            self._saved = time.monotonic()
        return answer
