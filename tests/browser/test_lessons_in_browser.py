"""Every notebook that needs no trained run, in JupyterLab and Chromium, where nothing has been done yet."""

import pytest

from browser.conftest import NOTEBOOKS

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1500)]


def test_the_lab_begins_with_a_page_to_read(chromium, lab):
    """As `make lab` opens it: no source, and its links open notebooks beside it."""
    page = chromium.new_page()
    page.goto(f"{lab.url}/lab/tree/notebooks/README.md?token={lab.token}")
    start = page.locator(".jp-MarkdownViewer")
    start.locator("h1", has_text="Start here").wait_for(timeout=120_000)
    start.get_by_role("link", name="05 Training").click()
    page.locator(".jp-NotebookPanel").wait_for(timeout=60_000)
    page.close()
    lab.stop_kernels()


@pytest.mark.parametrize("name", [name for name in NOTEBOOKS if not "06" <= name < "09"])
def test_run_all(name, run_all):
    run_all(name)
