"""A notebook in JupyterLab as a person uses it, and what a person would find wrong with it."""

import re
import time
from dataclasses import dataclass
from urllib.parse import quote

from browser.server import git

READY_S = 120  # s until a notebook is open and its kernel idle
POLL_S = 1  # s; reading the memory of all processes takes a while
MOVED_S = 60  # s until a moved slider has drawn
SAVED_S = 120  # s until git has been told of a saved notebook: seconds, but on a busy machine
QUIET_S = 1.5  # s that a state must last: outputs of widgets come after the cell has ended
PANEL = "const panel = [...jupyterapp.shell.widgets('main')].find(w => w.context?.path === path);"

STATE = f"""path => {{
  {PANEL}
  if (!panel?.content.model) return null;
  const cells = [...panel.content.model.cells];
  const code = cells.map((cell, i) => [cell, i]).filter(([c]) => c.type === 'code' && c.sharedModel.source.trim());
  const outputs = cell => Array.from({{length: cell.outputs.length}}, (_, i) => cell.outputs.get(i).type);
  return {{
    kernel: panel.sessionContext.session?.kernel?.status ?? 'none',
    waiting: code.filter(([cell]) => cell.executionCount === null).map(([, i]) => i),
    failed: code.some(([cell]) => outputs(cell).includes('error')),
    dialog: document.querySelector('.jp-Dialog')?.textContent ?? '',
  }};
}}"""

CONTENT = f"path => {{ {PANEL} return panel.content.model.toJSON(); }}"

# Only what is shown counts, after opening what is folded: a picture that didn't load is in the file all the
# same, and a player that waits out of sight for a choice has no sound yet.
SHOWN = f"""async path => {{
  {PANEL}
  const node = panel.content.node;
  const all = selector => [...node.querySelectorAll(selector)];
  const cells = all('.jp-Cell');
  const where = element => cells.indexOf(element.closest('.jp-Cell'));
  all('.jp-OutputArea details').forEach(e => e.open = true);
  const seen = kind => all('.jp-OutputArea ' + kind).filter(e => e.checkVisibility());
  const players = seen('audio'), images = seen('img');
  const end = Date.now() + 10000;
  const loading = () => players.some(a => !a.readyState && !a.error) || images.some(i => !i.complete);
  while (loading() && Date.now() < end) await new Promise(done => setTimeout(done, 100));
  const list = (elements, text) => elements.map(e => `cell ${{where(e)}}: ${{text(e)}}`);
  const printed = all('[data-mime-type$="jupyter.stderr"], [data-mime-type$="jupyter.error"]');
  const tracebacks = printed.filter(e => e.textContent.includes('Traceback (most recent call last)'));
  const wide = all('.jp-OutputArea-output, .cm-scroller, .jp-RenderedMarkdown')
    .filter(e => e.checkVisibility() && e.scrollWidth > e.clientWidth + 2);
  return {{
    players: players.length,
    images: images.length,
    problems: [
      ...list(tracebacks, e => `a traceback is shown: ${{e.textContent.trim().slice(-300)}}`),
      ...list(all('.jupyter-widgets-error-widget, .jupyter-widgets-error'), e => 'a widget is not shown'),
      ...list(images.filter(i => !i.naturalWidth), e => 'an image is not shown'),
      ...list(players.filter(a => !(a.duration > 0)), a => `a player has no sound: ${{a.error?.message ?? ''}}`),
      ...list(wide, e => `cut off, ${{e.scrollWidth}} px wide where ${{e.clientWidth}} px are shown`),
    ],
  }};
}}"""

PLAY = """async player => {
  await player.play();
  const end = Date.now() + 5000;
  while (!(player.currentTime > 0) && Date.now() < end) await new Promise(done => setTimeout(done, 50));
  player.pause();
  return player.currentTime;
}"""

THEME = """theme => jupyterapp.commands.execute('apputils:change-theme', {theme})"""


@dataclass(frozen=True)
class Outcome:
    """What Run All took."""

    seconds: float
    peak_mb: float  # memory of the kernel and its children, MB


class OpenNotebook:
    """A notebook of the served project in a page of the browser.

    Parameters
    ----------
    page : playwright.sync_api.Page
    server : server.Server
    name : str
        Stem of a file in ``notebooks/``.
    """

    def __init__(self, page, server, name):
        self.page, self.server, self.name = page, server, name
        self.path = f"notebooks/{name}.ipynb"
        page.goto(f"{server.url}/lab/tree/{quote(self.path)}?reset&token={server.token}")
        page.wait_for_function("() => window.jupyterapp", timeout=READY_S * 1000)
        self._wait(lambda state: state and state["kernel"] == "idle", READY_S, "open with an idle kernel")

    @property
    def node(self):
        """The notebook's part of the page, for Playwright's locators."""
        return self.page.locator(".jp-NotebookPanel:visible")

    def state(self):
        """Kernel, cells that have not run, whether one failed; None before the notebook is open."""
        return self.page.evaluate(STATE, self.path)

    def content(self):
        """The notebook as it would be saved now."""
        return self.page.evaluate(CONTENT, self.path)

    def run_all(self, limit_s):
        """Choose *Run All Cells* in the menu and wait until the kernel has done all of it.

        Parameters
        ----------
        limit_s : float
            Seconds that it may take.

        Returns
        -------
        Outcome
        """
        self.page.locator(".lm-MenuBar-item", has_text=re.compile("^Run$")).click()
        self.page.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()
        started, peak = time.monotonic(), [0.0]

        def over(state):
            peak.append(self.server.memory_mb())
            stopped = state["failed"] or state["dialog"] or not state["waiting"]
            return stopped and (state["kernel"] == "idle" or state["dialog"])

        self._wait(over, limit_s, "run to its end")
        return Outcome(time.monotonic() - started, max(peak))

    def save(self):
        """Save the notebook and return what git sees of all notebooks then; empty: nothing has changed."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
        deadline = time.monotonic() + SAVED_S
        while (seen := git(self.server.project, "status", "--porcelain", "notebooks")) and (
            time.monotonic() < deadline
        ):
            time.sleep(0.5)
        return seen

    def problems(self):
        """Everything that is wrong with the notebook as it stands on the page.

        Returns
        -------
        list of str
            Errors, tracebacks, cells that have not run, images and players that are not shown,
            outputs that are wider than the page; empty for a notebook that ran well.
        """
        state, found = self.state(), []
        if state["dialog"]:
            found.append(f"a dialog is open: {state['dialog']}")
        for number, cell in enumerate(self.content()["cells"]):
            for output in cell.get("outputs", ()):
                if output["output_type"] == "error":
                    found.append(f"cell {number}: {output['ename']}: {output['evalue']}")
        found += [f"cell {number}: has not run" for number in state["waiting"]]
        return found + self.shown()["problems"]

    def shown(self):
        """Numbers of ``players`` and ``images`` on the page, and ``problems`` that only a page has."""
        return self.page.evaluate(SHOWN, self.path)

    def play(self, player):
        """Start a player, wait until it is heard, stop it; return its position in seconds."""
        return player.evaluate(PLAY)

    def move_sliders(self):
        """Move every slider by a step with the keyboard and wait for its new picture; return their names."""
        from playwright.sync_api import TimeoutError as NotYet

        names = []
        for panel in self.node.locator(".serkit-sliders").all():
            for slider in panel.locator(".widget-slider").all():
                before = panel.locator("img").first.get_attribute("src")
                names.append(slider.locator("label").inner_text())
                # while it draws there is no picture
                changed = f"""node => {{ const image = node.querySelector('img'); return image && image.src !== {before!r}; }}"""
                for last in (
                    False,
                    True,
                ):  # on a busy machine a key may be pressed while the page still moves
                    slider.locator(".noUi-handle").press("ArrowRight")
                    try:
                        self.page.wait_for_function(
                            changed, arg=panel.element_handle(), timeout=MOVED_S * 1000
                        )
                        break
                    except NotYet:
                        if last:
                            raise
        return names

    def save_views(self, stem, selector):
        """Write ``<stem>_light.png`` and ``<stem>_dark.png`` with what the selector finds in the middle."""
        for theme, name in (("JupyterLab Dark", "dark"), ("JupyterLab Light", "light")):
            self.page.evaluate(THEME, theme)
            self.page.wait_for_selector(f'body[data-jp-theme-name="{theme}"]', state="attached")
            self.look_at(selector)
            self.page.screenshot(path=f"{stem}_{name}.png")

    def look_at(self, selector):
        """Scroll the first element that the selector finds into the middle of the page."""
        self.node.locator(selector).first.evaluate("e => e.scrollIntoView({block: 'center'})")
        self.page.wait_for_timeout(1000)  # fonts and the theme's colours settle

    def _wait(self, good, limit_s, purpose):
        now = since = time.monotonic()
        end = now + limit_s
        while now < end:
            state = self.state()
            now = time.monotonic()
            if not good(state):
                since = now
            elif now - since >= QUIET_S:
                return
            self.page.wait_for_timeout(POLL_S * 1000)
        raise AssertionError(f"{self.name} did not {purpose} within {limit_s} s: {state}")
