"""Numbers of others: each with its protocol and the address where it stands, and apart from our own."""

from serkit.constants import PAPER_RESULTS
from serkit.evaluation.claims import LITERATURE_COLUMNS, read_literature


def test_every_row_can_be_looked_up():
    table = read_literature()
    assert len(table) >= 3 and set(LITERATURE_COLUMNS) < set(table.columns)
    assert not table.duplicated(["system", "protocol"]).any()
    assert table["protocol"].str.contains("speakers").all()  # heard in training or not: what counts most


def test_the_paper_is_not_context_of_itself():
    table = read_literature()
    own = {value for pair in PAPER_RESULTS.values() for value in pair}
    assert not own & set(table["WA"]) and not table["source"].str.contains("2203.15326").any()


def test_every_row_has_a_score_in_percent_and_the_address_where_it_stands():
    table = read_literature()
    assert list(table.columns) == [*LITERATURE_COLUMNS[:2], "input", *LITERATURE_COLUMNS[2:], "how_known"]
    scores = table[["WA", "UA"]]
    assert scores.notna().any(axis=1).all() and not ((scores <= 1) | (scores > 100)).any(axis=None)
    assert table.drop(columns=["WA", "UA"]).notna().all(axis=None)
    assert table["source"].str.startswith("https://").all()
