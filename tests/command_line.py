"""The command line, called in this process."""

import sys

import pytest

from serkit import cli


def exit_code(*arguments):
    """Exit code of ``serkit`` with these arguments."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["serkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    return caught.value.code
