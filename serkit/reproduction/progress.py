"""What is seen of a running plan: a line for every change, and on a terminal a table that is kept up to date."""

import time

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from serkit import runs
from serkit.reproduction.plan import TRAINING

STATES = ("running", "done", "done before", "failed", "interrupted", "remaining")


class Board:
    """Keeps count of the steps of a plan and shows it.

    Used as a context. On a terminal the table stays below the lines; in a file there are lines only.

    Parameters
    ----------
    steps : list of serkit.reproduction.plan.Step
    skipped : list of str
        Titles of those that are done before.
    n_jobs : int, optional
        How many trainings run at a time.
    console : rich.console.Console, optional
    clock : callable, optional
        Seconds, for tests.
    """

    def __init__(self, steps, skipped=(), n_jobs=1, console=None, clock=time.monotonic):
        self.steps = {step.title: step for step in steps}
        self.numbers = {title: number for number, title in enumerate(self.steps, start=1)}
        self.n_jobs = n_jobs
        self.console = console or Console(highlight=False)
        self._clock = clock
        self._state = {title: "done before" if title in skipped else "remaining" for title in self.steps}
        self._began, self._seconds = {}, {}
        self._live = None

    def __enter__(self):
        for title, state in self._state.items():
            if state == "done before":
                self._say(title, state)
        if self.console.is_terminal:
            self._live = Live(get_renderable=self.table, console=self.console, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(self, *_):
        if self._live:
            self._live.stop()

    def change(self, title, state):
        """Note that a step is ``running``, ``done``, ``failed: ...``, ``interrupted: ...`` or ``remaining`` again."""
        kind, _, fault = state.partition(": ")
        if kind == "running":
            self._began[title] = self._clock()
            self._state[title] = kind  # after it: the table is drawn by a thread of its own
            self._say(title, f"running, log in {runs.show_path(self.steps[title].log)}")
            return
        seconds = self._seconds[title] = self._clock() - self._began.get(title, self._clock())
        self._state[title] = kind
        if kind == "remaining":
            self._say(title, "lost, to be run again")
            return
        verdict = {"failed": f"FAILED: {fault}", "interrupted": f"interrupted: {fault}"}.get(kind, kind)
        self._say(title, f"{verdict} in {seconds:.0f} s, at most {self.seconds_left() / 60:.1f} min left")

    def count(self, state):
        """How many steps are in a state."""
        return sum(one == state for one in self._state.values())

    def seconds_left(self):
        """Estimates of what is to come, scaled by how long finished steps of the same kind took."""
        left = {True: 0.0, False: 0.0}
        for title, state in self._state.items():
            step = self.steps[title]
            training = step.notebook == TRAINING
            whole = step.estimate_s * self._scale(training)
            if state == "remaining":
                left[training] += whole
            elif state == "running":
                left[training] += max(0.0, whole - (self._clock() - self._began[title]))
        waiting = sum(
            step.notebook == TRAINING and self._state[title] in ("remaining", "running")
            for title, step in self.steps.items()
        )
        return left[False] + left[True] / max(1, min(self.n_jobs, waiting))

    def _scale(self, training):
        """Seconds taken for each second of the estimate, by finished trainings or by other notebooks."""
        done = [
            title for title, state in self._state.items()
            if state == "done" and (self.steps[title].notebook == TRAINING) == training
        ]  # fmt: skip
        planned = sum(self.steps[title].estimate_s for title in done)
        return sum(self._seconds[title] for title in done) / planned if planned else 1.0

    def table(self):
        """Counts in one line, and below them what runs now and for how long."""
        counts = ", ".join(f"{self.count(state)} {state}" for state in STATES)
        running = Table.grid(padding=(0, 2))
        for title, state in self._state.items():
            if state == "running":
                minutes = (self._clock() - self._began[title]) / 60
                running.add_row(Text(f"  {title}"), Text(f"{minutes:.1f} min"))
        return Group(Text(f"{counts}; at most {self.seconds_left() / 60:.1f} min left"), running)

    def _say(self, title, text):
        line = f"[{self.numbers[title]:2d}/{len(self.steps)}] {title}: {text}"
        self.console.print(Text(line), soft_wrap=True)
