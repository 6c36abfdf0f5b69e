"""What a run says about the paper's claims: its numbers beside the paper's, and a verdict by a fixed rule.

Results of others stand in ``literature.csv``. They are context, not claims of the paper and not results of this
project: whoever tests on speakers that training has heard gets several points more.
"""

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from serkit import runs
from serkit.constants import IEMOCAP_UTTERANCES, PAPER_RESULTS, PUBLISHED_SEEDS
from serkit.errors import ParameterError
from serkit.evaluation.intervals import Estimate, percent
from serkit.evaluation.predictions import WORDS, check_predictions, scored_rows, tested_folds
from serkit.experiment import Experiment

MARGIN = 5.0  # percentage points
FOLDS = {"session": 5, "speaker": 10}
PROTOCOLS = {"published": ("published", "published"), "clean": ("corrected", "clean")}  # recipe, selection
HARMLESS = (  # how a model is trained, not what it becomes, and what the table has rows and columns for
    "micro_batch", "encoder_cache", "gradient_checkpointing", "compile", "keep_epochs", "corpus",
    "recipe", "selection", "by", "fold", "seed",
)  # fmt: skip
RULE = WORDS["claims"]["rule"].format(margin=MARGIN, seeds=len(PUBLISHED_SEEDS))

LITERATURE_COLUMNS = ["system", "year", "WA", "UA", "protocol", "source"]  # what the report shows
LITERATURE_CAPTION = WORDS["claims"]["literature"]


def verdict(paper, low, high, margin=MARGIN):
    """What an interval says about a value of the paper.

    *Not reproduced* if the value lies outside the interval. *Reproduced* if it lies inside and both
    ends are within ``margin`` of it: then a score that differs by more than the margin is ruled
    out, too. Otherwise the interval is too wide to say. Lying inside alone is no evidence: the worse the
    measurement, the wider the interval, and the more lies inside.

    The paper gives no intervals, so its value is taken as exact. It was measured on the same ten
    speakers, while the interval is of any ten such speakers: it is wider than a repetition on the
    same ones needs, so *not reproduced* is not said lightly. The margin was fixed before any run:
    ten speakers give an interval of some 3 to 4 points to either side at best, so a smaller margin
    could never be met, and a larger one would call half of the published systems the same.

    Parameters
    ----------
    paper, low, high : float
        In percent.
    margin : float
        In percentage points.

    Returns
    -------
    str
        ``reproduced``, ``not reproduced`` or ``can't tell: interval too wide``.

    Examples
    --------
    >>> verdict(71.05, 67.5, 74.0), verdict(71.05, 58.0, 70.2), verdict(71.05, 60.0, 75.0)
    ('reproduced', 'not reproduced', "can't tell: interval too wide")
    """
    if not low <= paper <= high:
        return "not reproduced"
    if low >= paper - margin and high <= paper + margin:
        return "reproduced"
    return "can't tell: interval too wide"


def paper_comparison(*names):
    """The paper's numbers, this project's beside them where they may stand there, and a verdict for each.

    Numbers stand beside the paper's only from IEMOCAP with all folds, the paper's model and its
    training. They are fold means over all seeds, as in the paper, with intervals over speakers
    and, if there are several, seeds.

    Parameters
    ----------
    *names : str
        One or more runs: the published and the clean protocol may have a run each.

    Returns
    -------
    pd.DataFrame
        One row per claim: ``claim, paper, published protocol, clean protocol`` (percent; the last
        two :class:`serkit.evaluation.intervals.Estimate`), ``verdict`` (published protocol) and ``verdict, clean
        protocol``: :func:`verdict`, or ``can't tell:`` and why.

    Raises
    ------
    RunError, ParameterError, FoldError
        If a run can't be read, a variant was made with different parameters or stands in two runs, or
        as :func:`serkit.evaluation.predictions.check_predictions`.
    """
    variants = _collect(names)
    records = []
    for by, values in PAPER_RESULTS.items():
        for score, paper in zip(("wa", "ua"), values, strict=True):
            cells, verdicts = {}, {}
            for protocol, (recipe, selection) in PROTOCOLS.items():
                experiment = Experiment(profile="paper", recipe=recipe, selection=selection, by=by)
                column = "verdict" if protocol == "published" else f"verdict, {protocol} protocol"
                cells[f"{protocol} protocol"], verdicts[column] = _judge(variants, experiment, score, paper)
            claim = {"claim": f"leave one {by} out, {score.upper()}", "paper": paper}
            records.append(claim | cells | verdicts)
    return pd.DataFrame(records)


def read_literature():
    """Results of others on the four classes of IEMOCAP, each with the protocol it was measured under.

    Returns
    -------
    pd.DataFrame
        ``system, year, input, WA, UA`` (percent, NaN where the source gives none), ``protocol, source`` (an
        address), ``how_known`` (where in the source the number was seen).
    """
    return pd.read_csv(Path(__file__).with_name("literature.csv"))


def _collect(names):
    """Predictions and parameters of every variant of all runs."""
    variants = {}
    for name in names:
        for variant, rows in runs.load_predictions(name).groupby("variant"):
            if variant in variants:
                raise ParameterError(f"variant {variant} stands in two runs of {list(names)}, expected one")
            check_predictions(rows, tested_folds(rows))
            variants[variant] = rows, runs.shared_parameters(name, variant)
    return variants


def _judge(variants, experiment, score, paper):
    """Cell of the table, and its verdict."""
    empty = Estimate(float("nan"))
    if any(parameters["corpus"] != "iemocap" for _, parameters in variants.values()):
        return empty, "can't tell: not IEMOCAP"
    if experiment.variant not in variants:
        return empty, "can't tell: not run"
    rows, parameters = variants[experiment.variant]
    test = rows[rows["split"] == "test"]
    n_folds = test.groupby("seed")["fold"].nunique().min()
    if n_folds != FOLDS[experiment.by]:
        return empty, f"can't tell: {n_folds} of {FOLDS[experiment.by]} folds"
    # the published code computes in float32; the clean protocol may do otherwise
    harmless = HARMLESS if experiment.selection == "published" else (*HARMLESS, "precision")
    for name, published in (asdict(experiment) | {"precision": "float32"}).items():
        if name not in harmless and parameters.get(name, published) != published:
            return empty, f"can't tell: {name}={parameters[name]}, published {published}"
    cell = percent(scored_rows(rows), score=score)
    n_utterances = test["utterance_id"].nunique()
    if n_utterances != IEMOCAP_UTTERANCES:
        return cell, f"can't tell: {n_utterances:,} of {IEMOCAP_UTTERANCES:,} utterances"
    if test["seed"].nunique() < len(PUBLISHED_SEEDS):
        return cell, "can't tell: one seed"
    return cell, verdict(paper, cell.low, cell.high)
