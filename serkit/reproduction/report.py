"""The report of a run: checked predictions, tables, figures, verdicts on the paper's claims, one page of it all."""

import pandas as pd

from serkit import runs
from serkit.constants import CHANCE_UA, LABELS
from serkit.errors import ParameterError, SerkitError
from serkit.evaluation.claims import (
    LITERATURE_CAPTION,
    LITERATURE_COLUMNS,
    RULE,
    paper_comparison,
    read_literature,
)
from serkit.evaluation.comparison import at_shared_seeds, compare_many
from serkit.evaluation.intervals import AVERAGES, MIN_CLUSTERS, Estimate, bootstrap_interval, summary_table
from serkit.evaluation.predictions import check_predictions
from serkit.figures.saving import DIGEST, digest_of
from serkit.figures.tables import save_table
from serkit.metrics import confusion_matrix, pooled_and_fold_mean
from serkit.reproduction.catalogue import read_catalogue, write_catalogue
from serkit.reproduction.runfigures import describe, save_run_figures
from serkit.runs import leak_notice

COLUMNS = ("folds", "utterances", "wa_fold_mean", "ua_fold_mean", "wa_pooled", "ua_pooled")
SCORE_NAMES = {"wa": "WA", "ua": "UA", "macro_f1": "macro-F1"}


def score_summary(run, variant=""):
    """One row for each variant and seed of a run, whatever of it has been finished.

    Parameters
    ----------
    run : str
    variant : str, optional
        Only this variant, whatever has become of the others; default all.

    Returns
    -------
    pd.DataFrame
        Columns ``variant, seed``; number of folds and utterances; WA and UA in percent, as mean
        over folds (the paper's way) and over all utterances pooled.

    Raises
    ------
    RunError, ParameterError, FoldError
        As :func:`serkit.evaluation.predictions.check_predictions`, except for folds that are not there: the
        column ``folds`` counts them.
    """
    rows = []
    for (name, seed), table in runs.load_predictions(run, variant).groupby(["variant", "seed"]):
        check_predictions(table, _tested(table))
        scores = pooled_and_fold_mean(table)
        percent = {name: round(100 * scores[name], 2) for name in COLUMNS[2:]}
        rows.append({
            "variant": name, "seed": seed, "folds": scores["n_folds"], "utterances": scores["n_utterances"]
        } | percent)  # fmt: skip
    return pd.DataFrame(rows)


def checked_predictions(run, partial=False):
    """Predictions of a run that may be averaged, and the folds to be averaged over.

    Parameters
    ----------
    run : str
    partial : bool
        Whether a run without all its folds will do. Every variant and seed must still have the same.

    Returns
    -------
    predictions : pd.DataFrame
    folds : dict of str to list of str
        Of each variant; empty unless ``partial``.

    Raises
    ------
    RunError, ParameterError, FoldError
        Naming what is wrong, a fold that is not there included, see :func:`serkit.runs.planned_folds`.
    """
    predictions = runs.load_predictions(run)
    folds = {}
    for variant, table in predictions.groupby("variant"):
        folds[variant] = _tested(table) if partial else runs.planned_folds(run, variant)
        check_predictions(table, folds[variant])
    if partial:
        return predictions, folds
    return check_predictions(predictions), {}


def score_intervals(predictions, folds=None):
    """Scores of each variant in percent, with 95 % intervals over speakers.

    Parameters
    ----------
    predictions : pd.DataFrame
    folds : dict of str to list of str, optional
        From :func:`checked_predictions`.

    Returns
    -------
    pd.DataFrame
        One row per variant and score: ``fold mean`` and ``pooled`` as
        :class:`serkit.evaluation.intervals.Estimate` (without interval for fewer than 5 speakers), and the
        standard deviations between folds and between seeds (NaN with one) in points.
    """
    records = []
    for variant, table in predictions.groupby("variant"):
        own = (folds or {}).get(variant)
        n_speakers = table.loc[table["split"] == "test", "speaker"].nunique()
        for row in summary_table(table, own).to_dict("records"):
            record = {"variant": variant, "score": SCORE_NAMES[row["score"]]}
            for average in AVERAGES[::-1]:
                cell = Estimate(100 * row[average])
                if n_speakers >= MIN_CLUSTERS:
                    found = bootstrap_interval(table, row["score"], average=average, folds=own)
                    cell = Estimate(100 * found.estimate, 100 * found.low, 100 * found.high)
                record[average.replace("_", " ")] = cell
            records.append(
                record | {"sd of folds": 100 * row["fold_sd"], "sd of seeds": 100 * row["seed_sd"]}
            )
    return pd.DataFrame(records)


def print_scores(run):
    """Print WA, UA and macro-F1 of what is finished of a run, after what must be known before any number.

    Parameters
    ----------
    run : str

    Raises
    ------
    RunError, ParameterError, FoldError
        As :func:`checked_predictions`, except for folds that are not there: they are named.
    """
    predictions, folds = checked_predictions(run, partial=True)
    parameters, corpus = _made_with(run, predictions)
    incomplete = any(set(runs.planned_folds(run, name) or []) - set(own) for name, own in folds.items())
    print("\n".join(["", *_remarks(run, corpus, predictions, parameters, incomplete)]))
    print(
        f"scores in % with 95 % intervals over speakers (from {MIN_CLUSTERS} on), standard deviations in points:",
        flush=True,
    )
    print(_in_lines(score_intervals(predictions, folds)), "\n")


def write_report(run, others=(), partial=False):
    """Check a run, print its scores and verdicts, and save tables, figures, catalogue and page.

    Parameters
    ----------
    run : str
    others : sequence of str
        Further runs that stand beside the paper, such as that of the published protocol.
    partial : bool
        See :func:`checked_predictions`; every caption says how many folds it is about.

    Returns
    -------
    Path
        Of ``runs/<run>/report.html``.

    Raises
    ------
    RunError, ParameterError, FoldError
        As :func:`checked_predictions` and :func:`serkit.evaluation.claims.paper_comparison`; nothing is
        written then.
    """
    from serkit.reproduction.page import write_page  # here: who only wants scores need not wait for nbconvert

    predictions, folds = checked_predictions(run, partial)
    comparison = paper_comparison(run, *others)
    parameters, corpus = _made_with(run, predictions)
    facts = [
        f"Corpus {corpus}, chance UA {CHANCE_UA:.0f} %.",
        *_remarks(run, corpus, predictions, parameters, partial),
    ]
    print(f"run {run}\n" + "\n".join(facts) + "\n")
    beside = {"others": {name: digest_of(runs.load_predictions(name)) for name in others}} if others else {}
    files, lost = _save_tables(run, predictions, folds, comparison, parameters, {"corpus": corpus} | beside)
    made, not_made = save_run_figures(run, predictions, runs.find_manifest(corpus), parameters, folds)
    digests = [digest_of(table) for _, table in predictions.groupby("variant")] + [digest_of(predictions)]
    entries = read_catalogue(run, digests=digests, not_made=not_made | lost)
    files += [*made, write_catalogue(run, entries)]
    page = write_page(run, summary=[*facts, RULE], entries=entries, predictions=digest_of(predictions))
    for entry in entries:
        if entry.faults:
            print(f"{entry.stem}: {'; '.join(entry.faults)}")
    print(f"written: {len(files)} files in {runs.show_path(files[0].parent)}, and {runs.show_path(page)}")
    return page


def _save_tables(run, predictions, folds, comparison, parameters, about):
    """Print and save scores, differences and the comparison with the paper; files, and what could not be made."""
    scores = score_intervals(predictions, folds)
    print(_in_lines(scores), "\n")
    for variant, table in predictions.groupby("variant"):
        tested = table[table["split"] == "test"]
        print(f"{variant}: confusion matrix, truth in rows, utterances over all seeds")
        print(confusion_matrix(tested["truth"], tested["prediction"], LABELS).to_string(), "\n")
    print(f"{_in_lines(comparison, decimals=2)}\n{RULE}\n")
    corpus, about = about["corpus"], about | {DIGEST: digest_of(predictions)}
    if any(one.get("selection") == "published" for one in parameters.values()):
        about |= {"selection": "published"}  # one leaking row is enough to say so under the table
    tables = [describe(table, parameters[name]) for name, table in predictions.groupby("variant")]
    caption = f"Scores in % with 95 % intervals over speakers (from {MIN_CLUSTERS} on): {'; '.join(tables)}."
    common = {"run": run, "parameters": about, "decimals": 1}
    files = save_table(scores, "scores_by_variant", caption=caption, **common)
    caption = f"WA and UA in %, mean over folds, with 95 % intervals over speakers; corpus {corpus}. {RULE}"
    files += save_table(comparison, "paper_comparison", caption=caption, **common | {"decimals": 2})
    context = read_literature()[LITERATURE_COLUMNS]  # of others: without this run's predictions and leaks
    files += save_table(context, "literature", run=run, caption=LITERATURE_CAPTION)
    if len(tables) < 2:
        return files, {}
    try:
        paired = at_shared_seeds(predictions)
        differences = compare_many(paired, folds=next(iter(folds.values()), None))
    except SerkitError as error:
        return files, {"variant_differences": str(error)}
    seeds = ", ".join(map(str, sorted(paired["seed"].unique())))
    caption = f"Differences of UA as fractions, p corrected for {len(differences)} pairs (Holm): {corpus}, seed {seeds}."
    files += save_table(differences, "variant_differences", caption=caption, **common | {"decimals": 4})
    return files, {}


def _remarks(run, corpus, predictions, parameters, partial):
    """What a reader must know before any number."""
    remarks = []
    if corpus != "iemocap":
        remarks.append(f"{corpus} is not IEMOCAP: this run can't speak about the paper's numbers.")
    notices = {leak_notice(one) for one in parameters.values()} - {""}
    remarks += sorted(notices)
    if partial:
        for variant, table in predictions.groupby("variant"):
            planned = runs.planned_folds(run, variant) or []
            lost = sorted(set(planned) - set(_tested(table)))
            missing = f"; missing: {', '.join(lost)}" if lost else ""
            remarks.append(f"{variant}: scores are of folds {', '.join(_tested(table))} only{missing}.")
    return remarks


def _tested(table):
    return sorted(table.loc[table["split"] == "test", "fold"].astype(str).unique())


def _made_with(run, predictions):
    """Parameters of each variant, and the corpus of all."""
    parameters = {name: runs.shared_parameters(run, name) for name in sorted(predictions["variant"].unique())}
    corpora = {one.get("corpus") for one in parameters.values()}
    if len(corpora) != 1:
        raise ParameterError(
            f"run {run!r} holds the corpora {sorted(map(str, corpora))}, expected one; give each corpus its own run"
        )
    return parameters, corpora.pop()


def _in_lines(table, decimals=1):
    """A table for printing: estimates with their intervals, a dash for what is not known."""

    def text(cell):
        if not isinstance(cell, Estimate):
            return cell
        interval = "" if pd.isna(cell.low) else f" [{cell.low:.1f}, {cell.high:.1f}]"
        return "–" if pd.isna(cell.value) else f"{cell.value:.1f}{interval}"

    return table.map(text).to_string(index=False, na_rep="–", float_format=f"{{:.{decimals}f}}".format)
