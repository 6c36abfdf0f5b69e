"""The utterances behind a confusion matrix: choose, sort, turn pages, keep a list; tables in, tables out."""

import pandas as pd

from serkit.errors import CorpusError, ParameterError, RunError
from serkit.evaluation.predictions import PROBABILITIES, selection_of
from serkit.experiment import Experiment, project_home
from serkit.figures import save_table
from serkit.metrics import confusion_matrix
from serkit.runs import (
    DONE,
    Run,
    corpus_root,
    finished_folders,
    load_predictions,
    open_manifest,
    shared_parameters,
)

ALL = "all"  # no choice made
PAGE = 10  # utterances shown at once
IDENTITY = ["variant", "fold", "seed", "utterance_id"]  # of one prediction
ABOUT = ["path", "transcript"]  # what the manifest adds, besides the duration
ORDERS = {  # what a listener may sort by -> column, rising
    "confidence, highest first": ("confidence", False),
    "confidence, lowest first": ("confidence", True),
    "duration, longest first": ("seconds", False),
    "duration, shortest first": ("seconds", True),
    "speaker": ("speaker", True),
}


def runs_on_disk():
    """Names of all runs that have a finished fold, sorted."""
    base = project_home() / "runs"
    return sorted({path.relative_to(base).parts[0] for path in base.glob("*/*/fold=*/seed=*/" + DONE)})


def variants_on_disk(run):
    """Variants of a run that have a finished fold, sorted.

    Raises
    ------
    RunError
        If there is none, saying what makes one.
    """
    return sorted({folder.parts[-3] for folder in finished_folders(run)})


def load_utterances(run, variant):
    """The tested utterances of one variant with what the corpus knows about them.

    Parameters
    ----------
    run, variant : str

    Returns
    -------
    table : pd.DataFrame
        From :func:`utterance_table`.
    corpus : str
    missing : str
        Why duration, transcript and sound are unknown; empty if they are known.

    Raises
    ------
    RunError
        If the run or the variant has no finished fold, or its folds must not be put together.
    """
    predictions = load_predictions(run, variant)
    corpus = shared_parameters(run, variant)["corpus"]
    manifest, missing = None, ""
    try:
        manifest = open_manifest(Run(run, Experiment(corpus=corpus), corpus_root(corpus), device=""))
    except RunError as error:
        missing = str(error)
    return utterance_table(predictions, manifest), corpus, missing


def utterance_table(predictions, manifest=None):
    """One row for each test prediction, with confidence, duration, path and transcript.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table; rows of other splits are left out.
    manifest : pd.DataFrame, optional
        Without it, or for utterances that it lacks, ``seconds``, ``path`` and ``transcript`` are missing.

    Returns
    -------
    pd.DataFrame
        ``utterance_id, speaker, session, variant, fold, seed, seconds, confidence, truth, prediction,
        p_angry, ..., path, transcript``, index 0, 1, ... Confidence is the highest of the four
        probabilities.

    Examples
    --------
    >>> guess = {"utterance_id": "a", "speaker": "1F", "session": "1", "truth": "sad", "prediction": "angry",
    ...          "p_angry": 0.6, "p_sad": 0.2, "p_happy": 0.1, "p_neutral": 0.1, "fold": "1", "seed": 111,
    ...          "variant": "v", "split": "test"}
    >>> about = pd.DataFrame({"utterance_id": ["a"], "num_samples": 24000, "sample_rate": 16000,
    ...                       "path": "a.wav", "transcript": "Go."})
    >>> utterance_table(pd.DataFrame([guess]), about)[["confidence", "seconds", "transcript"]].values.tolist()
    [[0.6, 1.5, 'Go.']]
    """
    rows = predictions[predictions["split"] == "test"].reset_index(drop=True)
    rows = rows.astype({"fold": str, "speaker": str})
    rows["confidence"] = rows[list(PROBABILITIES)].max(axis=1)
    if manifest is None:
        about = pd.DataFrame({"seconds": pd.Series(dtype=float)}, index=pd.Index([], dtype=str))
    else:
        about = manifest.set_index("utterance_id")
        about = about.assign(seconds=(about["num_samples"] / about["sample_rate"]).astype(float))
    about = about.reindex(columns=["seconds", *ABOUT]).reindex(rows["utterance_id"])
    rows = rows.assign(**{name: about[name].to_numpy() for name in about})
    order = ["utterance_id", "speaker", "session", "variant", "fold", "seed", "seconds", "confidence",
             "truth", "prediction", *PROBABILITIES, *ABOUT]  # fmt: skip
    return rows[order]


def choose(table, *, fold=ALL, seed=ALL, speaker=ALL):
    """Rows of one fold, seed and speaker, or of all of them.

    Raises
    ------
    ParameterError
        If nothing is left.

    Examples
    --------
    >>> table = pd.DataFrame({"fold": ["1", "2"], "seed": [111, 111], "speaker": ["1F", "2F"]})
    >>> len(choose(table)), len(choose(table, fold="1"))
    (2, 1)
    """
    wanted = {"fold": fold, "seed": seed, "speaker": speaker}
    wanted = {name: value for name, value in wanted.items() if value != ALL}
    for name, value in wanted.items():
        table = table[table[name] == value]
    if table.empty:
        what = " and ".join(f"{name} {value}" for name, value in wanted.items()) or "this variant"
        raise ParameterError(
            f"{what}: no tested utterance, expected at least one; choose 'all' for one of them"
        )
    return table


def counts_of(table):
    """Confusion matrix of the rows: truth in rows, prediction in columns, in predictions."""
    return confusion_matrix(table["truth"], table["prediction"])


def behind_cell(table, truth, prediction):
    """Rows that one cell of the confusion matrix counts.

    Raises
    ------
    ParameterError
        If the cell counts none.
    """
    rows = table[(table["truth"] == truth) & (table["prediction"] == prediction)]
    if rows.empty:
        what = (
            f"no {truth} utterance was taken for {prediction}"
            if truth != prediction
            else f"no {truth} utterance was recognised"
        )
        raise ParameterError(f"{what} here, so there is nothing to hear; pick a cell that counts some")
    return rows


def in_order(table, order):
    """The rows sorted; equals by utterance, what is unknown at the end.

    Parameters
    ----------
    table : pd.DataFrame
    order : str
        A key of ``ORDERS``.

    Examples
    --------
    >>> table = pd.DataFrame({"utterance_id": ["b", "a", "c"], "speaker": ["2F", "2F", "1F"],
    ...                       "seconds": [2.0, None, 1.0]})
    >>> [in_order(table, order)["utterance_id"].tolist() for order in ("speaker", "duration, longest first")]
    [['c', 'a', 'b'], ['b', 'c', 'a']]
    """
    if order not in ORDERS:
        raise ParameterError(f"order={order!r}, expected one of {', '.join(map(repr, ORDERS))}")
    column, rising = ORDERS[order]
    return table.sort_values([column, "utterance_id"], ascending=[rising, True], ignore_index=True)


def page_of(table, number, size=PAGE):
    """Some rows of many: page ``number``, counted from 0, and how many pages there are.

    A number outside is moved to the first or the last page.

    Examples
    --------
    >>> rows, number, n_pages = page_of(pd.DataFrame({"x": range(25)}), 7)
    >>> rows["x"].tolist(), number, n_pages
    ([20, 21, 22, 23, 24], 2, 3)
    """
    n_pages = max(1, -(-len(table) // size))
    number = min(max(number, 0), n_pages - 1)
    return table.iloc[number * size : (number + 1) * size], number, n_pages


def text_lines(rows, marked=frozenset()):
    """Rows as text in columns that stand below each other, for a font of equal widths.

    Parameters
    ----------
    rows : pd.DataFrame
        Of :func:`utterance_table`.
    marked : set of tuple, optional
        Keys (``IDENTITY``) of rows that get a star.

    Returns
    -------
    list of str
        The heading, then one line for each row.
    """
    several_seeds = rows["seed"].nunique() > 1
    cells = [
        (
            "★",
            "utterance",
            "speaker",
            "fold",
            *["seed"] * several_seeds,
            "duration",
            "confidence",
            "truth",
            "taken for",
        )
    ]
    for row in rows.to_dict("records"):
        seconds = "–" if pd.isna(row["seconds"]) else f"{row['seconds']:.2f} s"
        seed = [str(row["seed"])] * several_seeds
        star = "★" if key_of(row) in marked else " "
        cells.append((star, row["utterance_id"], row["speaker"], row["fold"], *seed, seconds,
                      f"{row['confidence']:.1%}", row["truth"], row["prediction"]))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numbers = (cells[0].index("duration"), cells[0].index("confidence"))
    return [
        "  ".join(
            cell.rjust(width) if place in numbers else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]


def key_of(row):
    """What tells a prediction from all others of a run: variant, fold, seed, utterance."""
    return tuple(row[name] for name in IDENTITY)


def model_folder(run, row):
    """Where the model lies that made a prediction."""
    fold = project_home() / "runs" / run / row["variant"] / f"fold={row['fold']}" / f"seed={row['seed']}"
    return fold / "model"


def sound_path(row):
    """The sound file of an utterance.

    Raises
    ------
    CorpusError
        If the manifest doesn't say where it is.
    """
    if pd.isna(row["path"]):
        raise CorpusError(
            f"utterance {row['utterance_id']}: its sound file is not known, expected it in the manifest; "
            "run notebook 01_prepare_corpus with the corpus of this run"
        )
    return row["path"]


def save_marked(run, rows, *, corpus):
    """Write the utterances that a listener marked to ``figures/<run>/marked.csv``.

    Parameters
    ----------
    run : str
    rows : sequence of dict
        Rows of :func:`utterance_table`; sorted before they are written.
    corpus : str

    Returns
    -------
    list of Path
        As :func:`serkit.figures.save_table`; the CSV is the first.

    Raises
    ------
    ParameterError
        If nothing is marked.
    """
    if not rows:
        raise ParameterError(
            "marked list: 0 utterances, expected at least one; select an utterance and mark it"
        )
    columns = [
        *IDENTITY,
        "speaker",
        "seconds",
        "confidence",
        "truth",
        "prediction",
        *PROBABILITIES,
        "transcript",
    ]
    table = pd.DataFrame(rows)[columns].sort_values(IDENTITY, ignore_index=True)
    leaks = "published" in set(table["variant"].map(selection_of))
    return save_table(
        table, "marked", run=run, decimals=3,
        caption=f"Utterances marked by a listener: {corpus}, {len(table)} of run {run}.",
        parameters={"corpus": corpus} | ({"selection": "published"} if leaks else {}),
    )  # fmt: skip
