"""Numbers of others: each with its protocol and the address where it stands, and apart from our own."""

import pandas as pd
import pytest

from serkit.constants import PAPER_RESULTS
from serkit.errors import ParameterError
from serkit.evaluation.literature import SHOWN, read_literature


def test_every_row_can_be_looked_up():
    table = read_literature()
    assert len(table) >= 3 and set(SHOWN) < set(table.columns)
    assert not table.duplicated(["system", "protocol"]).any()
    assert table["protocol"].str.contains("speakers").all()  # heard in training or not: what counts most


def test_the_paper_is_not_context_of_itself():
    table = read_literature()
    own = {value for pair in PAPER_RESULTS.values() for value in pair}
    assert not own & set(table["WA"]) and not table["source"].str.contains("2203.15326").any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": ["somewhere"]}, "line 2: source is missing or no address"),
        ({"protocol": [None]}, "line 2: protocol is missing"),
        ({"WA": [None], "UA": [None]}, "line 2: WA=nan, UA=nan, expected at least one"),
        ({"WA": [0.73]}, r"WA=0.73, .*fractions have to be multiplied by 100"),
        ({"note": ["x"]}, "columns are .*'note'"),
    ],
)
def test_a_row_without_origin_is_refused(tmp_path, change, message):
    path = tmp_path / "literature.csv"
    read_literature()[:1].assign(**change).to_csv(path, index=False)
    with pytest.raises(ParameterError, match=message):
        read_literature(path)


def test_read_as_it_is_written(tmp_path):
    path = tmp_path / "copy.csv"
    read_literature().to_csv(path, index=False)
    pd.testing.assert_frame_equal(read_literature(path), read_literature())
