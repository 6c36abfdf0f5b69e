"""Results of others on the four classes of IEMOCAP, each with the protocol it was measured under.

They are context, not claims of the paper and not results of this project: whoever tests on speakers that
training has heard gets several points more. ``literature.csv`` holds only numbers that were seen in the
named source; ``how_known`` says where in it.
"""

from pathlib import Path

import pandas as pd

from serkit.errors import ParameterError

FILE = Path(__file__).with_name("literature.csv")
SHOWN = ("system", "year", "WA", "UA", "protocol", "source")
COLUMNS = ("system", "year", "input", "WA", "UA", "protocol", "source", "how_known")
CAPTION = (
    "Context from the literature, not measured here: four classes of IEMOCAP from audio, in %. Each row has a protocol of "
    "its own; known speakers were heard in training. A dash: the source gives no number."
)


def read_literature(path=FILE):
    """Rows of ``literature.csv``, checked.

    Parameters
    ----------
    path : path, optional

    Returns
    -------
    pd.DataFrame
        Columns ``system, year, input, WA, UA`` (percent, NaN where the source gives none), ``protocol,
        source`` (an address), ``how_known``.

    Raises
    ------
    ParameterError
        If a column or a value is missing, a row has neither WA nor UA, or a score is no percentage.
    """
    table = pd.read_csv(path)
    if tuple(table.columns) != COLUMNS:
        raise ParameterError(
            f"{path}: columns are {list(table.columns)}, expected {list(COLUMNS)}; add what is missing"
        )
    for number, row in enumerate(table.to_dict("records"), start=2):
        empty = [name for name in COLUMNS if name not in ("WA", "UA") and pd.isna(row[name])]
        if empty or not str(row["source"]).startswith("https://"):
            raise ParameterError(
                f"{path}, line {number}: {', '.join(empty) or 'source'} is missing or no address, expected a number with its "
                "protocol and the address where it stands; complete the row or take it out"
            )
        scores = [row[name] for name in ("WA", "UA") if pd.notna(row[name])]
        if not scores or not all(1 < score <= 100 for score in scores):
            raise ParameterError(
                f"{path}, line {number}: WA={row['WA']}, UA={row['UA']}, expected at least one of them, in percent "
                "(1 to 100); fractions have to be multiplied by 100"
            )
    return table
