"""JupyterLab as `make lab` starts it: to git, a notebook saved with its outputs is unchanged."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HOME = Path(__file__).parents[1]
# git's index is changed by one process at a time
ONE_BY_ONE = ThreadPoolExecutor(max_workers=1)


def tidy(os_path, model, **_):
    """Called by the server after each save; it waits for nothing."""
    if model["type"] == "notebook":
        ONE_BY_ONE.submit(
            subprocess.run,
            ["make", "--silent", "tidy"],
            cwd=HOME,
            capture_output=True,
        )


get_config().FileContentsManager.post_save_hook = tidy  # noqa: F821
