"""The report of a run: checked predictions, tables, figures, verdicts on the paper's claims, one page of it all."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from math import comb

import matplotlib.pyplot as plt
import pandas as pd

from serkit import evaluation, figures, metrics, runs
from serkit.constants import CHANCE_UA, LABELS
from serkit.errors import ParameterError, SerkitError
from serkit.evaluation.claims import LITERATURE_CAPTION, LITERATURE_COLUMNS, RULE
from serkit.evaluation.intervals import AVERAGES, MIN_CLUSTERS, Estimate
from serkit.figures import DIGEST, digest_of, save_table
from serkit.figures.curves import MAX_POINTS
from serkit.reproduction.page import read_catalogue, write_catalogue, write_page

SCORE_NAMES = {"wa": "WA", "ua": "UA", "macro_f1": "macro-F1"}
MAX_PAIRS = 6  # differences of variants, the first ones by name


@dataclass(frozen=True)
class RunFigure:
    """A figure of a run, which is computed and drawn when it is asked for."""

    stem: str
    caption: str
    size: tuple  # columns of a page, and height in inches
    numbers: Callable  # () -> pd.DataFrame: what the CSV holds
    plot: Callable  # (ax) -> ax
    parameters: dict  # of its sidecar

    def save(self, run, root=None):
        """Draw it and write its files; returns their paths."""
        columns, height = self.size
        data = self.numbers()
        with figures.paper_style(columns=columns, height=height):
            figure, ax = plt.subplots()
            try:
                self.plot(ax)
                return figures.save_figure(
                    figure,
                    self.stem,
                    run=run,
                    data=data,
                    caption=self.caption,
                    parameters=self.parameters,
                    root=root,
                )
            finally:
                plt.close(figure)


def score_summary(run, variant=""):
    """One row for each variant and seed of a run, whatever of it has been finished.

    Parameters
    ----------
    run : str
    variant : str, optional
        Only this one is read; default all.

    Returns
    -------
    pd.DataFrame
        Columns ``variant, seed``; number of folds and utterances; WA and UA in percent, as mean
        over folds (the paper's way) and over all utterances pooled.

    Raises
    ------
    RunError, ParameterError, FoldError
        As :func:`serkit.evaluation.check_predictions`, except for folds that are not there: the
        column ``folds`` counts them.
    """
    rows = []
    for (name, seed), table in runs.load_predictions(run, variant).groupby(["variant", "seed"]):
        evaluation.check_predictions(table, tested_folds(table))
        scores = metrics.pooled_and_fold_mean(table)
        row = {
            "variant": name,
            "seed": seed,
            "folds": scores["n_folds"],
            "utterances": scores["n_utterances"],
        }
        percent = ("wa_fold_mean", "ua_fold_mean", "wa_pooled", "ua_pooled")
        rows.append(row | {score: round(100 * scores[score], 2) for score in percent})
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
        folds[variant] = tested_folds(table) if partial else runs.planned_folds(run, variant)
        evaluation.check_predictions(table, folds[variant])
    return (predictions, folds) if partial else (evaluation.check_predictions(predictions), {})


def tested_folds(predictions):
    """Names of the folds that a prediction table tests, sorted."""
    return sorted(predictions.loc[predictions["split"] == "test", "fold"].astype(str).unique())


def made_with(run, predictions):
    """Parameters of each variant, and the corpus of all.

    Raises
    ------
    RunError, ParameterError
        If the folds of a variant, or the corpora of two variants, differ.
    """
    parameters = {name: runs.shared_parameters(run, name) for name in sorted(predictions["variant"].unique())}
    corpora = {known.get("corpus") for known in parameters.values()}
    if len(corpora) != 1:
        raise ParameterError(
            f"run {run!r} holds the corpora {sorted(map(str, corpora))}, expected one; give each corpus its own run"
        )
    return parameters, corpora.pop()


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
        :class:`serkit.evaluation.Estimate` (without interval for fewer than 5 speakers), and the
        standard deviations between folds and between seeds (NaN with one) in points.
    """
    records = []
    for variant, table in predictions.groupby("variant"):
        counted = (folds or {}).get(variant)
        n_speakers = table.loc[table["split"] == "test", "speaker"].nunique()
        for row in evaluation.summary_table(table, counted).to_dict("records"):
            record = {"variant": variant, "score": SCORE_NAMES[row["score"]]}
            for average in AVERAGES[::-1]:
                values = [row[average]]
                if n_speakers >= MIN_CLUSTERS:
                    interval = evaluation.bootstrap_interval(
                        table, row["score"], average=average, folds=counted
                    )
                    values = [interval.estimate, interval.low, interval.high]
                record[average.replace("_", " ")] = Estimate(*(100 * value for value in values))
            records.append(
                record | {"sd of folds": 100 * row["fold_sd"], "sd of seeds": 100 * row["seed_sd"]}
            )
    return pd.DataFrame(records)


def variant_differences(predictions, folds=None):
    """Differences of UA between the variants, at the seeds that all of them have.

    Parameters
    ----------
    predictions, folds
        As in :func:`score_intervals`.

    Returns
    -------
    pd.DataFrame
        As :func:`serkit.evaluation.compare_many`, whose errors are raised.
    """
    paired = evaluation.at_shared_seeds(predictions)
    return evaluation.compare_many(paired, folds=next(iter((folds or {}).values()), None))


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
    parameters, corpus = made_with(run, predictions)
    incomplete = any(set(runs.planned_folds(run, name) or []) - set(tested) for name, tested in folds.items())
    print("\n".join(["", *_remarks(run, corpus, predictions, parameters, incomplete)]))
    print(
        f"scores in % with 95 % intervals over speakers (from {MIN_CLUSTERS} on), standard deviations in points:"
    )
    print(_in_lines(score_intervals(predictions, folds)), "\n", flush=True)


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
        As :func:`checked_predictions` and :func:`serkit.evaluation.paper_comparison`; nothing is
        written then.
    """
    predictions, folds = checked_predictions(run, partial)
    comparison = evaluation.paper_comparison(run, *others)
    parameters, corpus = made_with(run, predictions)
    facts = [
        f"Corpus {corpus}, chance UA {CHANCE_UA:.0f} %.",
        *_remarks(run, corpus, predictions, parameters, partial),
    ]
    print(f"run {run}\n" + "\n".join(facts) + "\n")
    beside = {"others": {name: digest_of(runs.load_predictions(name)) for name in others}} if others else {}
    about = {"corpus": corpus, DIGEST: digest_of(predictions)} | beside
    files, not_made = _save_tables(run, predictions, folds, comparison, parameters, about)
    for figure in run_figures(run, predictions, runs.find_manifest(corpus), parameters, folds):
        try:
            files += figure.save(run)
        except SerkitError as error:  # stops no other
            not_made[figure.stem] = str(error)
    variants = predictions["variant"].nunique()
    if comb(variants, 2) > MAX_PAIRS:
        not_made["confusion_difference"] = (
            f"shown for the first {MAX_PAIRS} of {comb(variants, 2)} pairs of variants"
        )
    digests = [digest_of(table) for _, table in predictions.groupby("variant")] + [digest_of(predictions)]
    entries = read_catalogue(run, digests=digests, not_made=not_made)
    files.append(write_catalogue(run, entries))
    page = write_page(run, summary=[*facts, RULE], entries=entries, predictions=digest_of(predictions))
    for entry in entries:
        if entry.faults:
            print(f"{entry.stem}: {'; '.join(entry.faults)}")
    print(f"written: {len(files)} files in {runs.show_path(files[0].parent)}, and {runs.show_path(page)}")
    return page


def run_figures(run, predictions, manifest, parameters, folds=None):
    """The figures of every variant, and the differences between variants.

    Parameters
    ----------
    run : str
    predictions : pd.DataFrame
        Checked prediction table of all variants.
    manifest : pd.DataFrame or None
        Of the corpus, for durations.
    parameters : dict of str to dict
        Of each variant, from :func:`made_with`.
    folds : dict of str to list of str, optional
        Folds of each variant that count, where not all have been run.

    Returns
    -------
    list of RunFigure
    """
    tables, made = dict(list(predictions.groupby("variant"))), []
    for variant, table in tables.items():
        about = parameters[variant] | {"variant": variant, DIGEST: digest_of(table)}
        protocol = _protocol(table, parameters[variant])
        for stem, caption, *rest in _of_variant(run, variant, table, manifest, (folds or {}).get(variant)):
            made.append(RunFigure(f"{stem}_{runs.stem_of(variant)}", f"{caption}: {protocol}.", *rest, about))
    for a, b in list(combinations(tables, 2))[:MAX_PAIRS]:
        made.append(
            _difference(tables[a], tables[b], (folds or {}).get(a), parameters, digest_of(predictions))
        )
    return made


def _of_variant(run, variant, table, manifest, folds):
    """Stem, caption, size, numbers and plot of each figure of a variant."""
    tested = table[table["split"] == "test"]
    n_folds = tested["fold"].nunique()
    over_speakers = "with 95 % intervals over speakers"
    vectors = (
        f"t-SNE of the fused vectors of the network of each fold for itself, seed {tested['seed'].min()}, at most "
        f"{MAX_POINTS // n_folds} test utterances a fold, at even steps"
    )

    @cache
    def points():  # both figures share the points, which take seconds to find
        return figures.fold_points(figures.read_vectors(run, table, folds))

    def histories():
        return figures.read_histories(run, variant)

    def known():
        if manifest is None:
            raise ParameterError("the manifest of the corpus is missing; run notebook 01_prepare_corpus")
        return manifest

    return [
        ("speaker_confusions", "Confusion matrix of each unseen speaker, truth in rows, utterances in the cells",
         (2, figures.speaker_grid(tested["speaker"].nunique())[2]), lambda: figures.speaker_confusions(table, folds),
         lambda ax: figures.plot_speaker_confusions(table, ax, folds=folds)),
        ("recall_intervals", f"Recall of each class {over_speakers}", (1, 2.4),
         lambda: evaluation.class_recall(table, folds=folds),
         lambda ax: figures.plot_recall_intervals(table, ax, folds=folds)),
        ("reliability", "Share of right answers by confidence", (1, 2.8),
         lambda: evaluation.reliability_table(table, folds=folds),
         lambda ax: figures.plot_reliability(table, ax, folds=folds)),
        ("fold_curves", "UA by epoch, each fold and seed thin, their mean thick", (1, 2.4), histories,
         lambda ax: figures.plot_history(histories(), ax, what="ua")),
        ("duration_accuracy", f"Share of right utterances by duration {over_speakers}", (2, 2.4),
         lambda: figures.duration_accuracy(table, known(), folds=folds),
         lambda ax: figures.plot_duration_accuracy(table, known(), ax, folds=folds)),
        ("embedding_emotion", f"{vectors}, by emotion", figures.fold_grid(n_folds)[2:], points,
         lambda ax: figures.plot_fold_points(points(), ax)),
        ("embedding_speaker", f"{vectors}, by speaker", figures.fold_grid(n_folds)[2:], points,
         lambda ax: figures.plot_fold_points(points(), ax, by="speaker")),
    ]  # fmt: skip


def _difference(a, b, folds, parameters, digest):
    """How often A gives an answer more often than B, at the seeds that both have."""
    names = [table["variant"].iloc[0] for table in (a, b)]

    def pair():
        both = evaluation.at_shared_seeds(pd.concat([a, b], ignore_index=True))
        return [both[both["variant"] == name] for name in names]

    leaks = "published" in (parameters[name].get("selection") for name in names)
    about = {"corpus": parameters[names[0]].get("corpus"), "a": names[0], "b": names[1], DIGEST: digest}
    shared = sorted(set(a["seed"]) & set(b["seed"]))
    protocol = _protocol(a[a["seed"].isin(shared)], parameters[names[0]], name=False) if shared else ""
    return RunFigure(
        f"confusion_difference_{runs.stem_of(names[0])}__{runs.stem_of(names[1])}",
        "Confusion matrix of A minus that of B, row shares in percentage points, "
        f"A = {names[0]}, B = {names[1]}: {protocol}.",
        (1, 2.6),
        lambda: figures.confusion_difference(*pair(), folds),
        lambda ax: figures.plot_confusion_difference(*pair(), ax, folds=folds),
        about | ({"selection": "published"} if leaks else {}),
    )


def _protocol(table, parameters, name=True):
    """Protocol of a variant in a few words, for captions: corpus, folds, counts."""
    test = table[table["split"] == "test"]
    seeds = test["seed"].nunique()
    words = [
        parameters.get("corpus", "unknown corpus"),
        f"{test['fold'].nunique()} folds by {parameters.get('by', 'unknown')}",
        f"{test['utterance_id'].nunique()} utterances of {test['speaker'].nunique()} speakers",
        f"{seeds} seed{'s' * (seeds > 1)}",
    ]
    return ", ".join(words + [str(table["variant"].iloc[0])] * name)


def _save_tables(run, predictions, folds, comparison, parameters, about):
    """Print and save scores, differences and the comparison with the paper; files, and what could not be made."""
    scores = score_intervals(predictions, folds)
    print(_in_lines(scores), "\n")
    for variant, table in predictions.groupby("variant"):
        tested = table[table["split"] == "test"]
        print(f"{variant}: confusion matrix, truth in rows, utterances over all seeds")
        print(metrics.confusion_matrix(tested["truth"], tested["prediction"], LABELS).to_string(), "\n")
    print(f"{_in_lines(comparison, decimals=2)}\n{RULE}\n")
    corpus = about["corpus"]
    if any(known.get("selection") == "published" for known in parameters.values()):
        about = about | {"selection": "published"}  # one leaking row is enough to say so under the table
    protocols = [_protocol(table, parameters[name]) for name, table in predictions.groupby("variant")]
    caption = (
        f"Scores in % with 95 % intervals over speakers (from {MIN_CLUSTERS} on): {'; '.join(protocols)}."
    )
    common = {"run": run, "parameters": about, "decimals": 1}
    files = save_table(scores, "scores_by_variant", caption=caption, **common)
    caption = f"WA and UA in %, mean over folds, with 95 % intervals over speakers; corpus {corpus}. {RULE}"
    files += save_table(comparison, "paper_comparison", caption=caption, **common | {"decimals": 2})
    context = evaluation.read_literature()[
        LITERATURE_COLUMNS
    ]  # of others: without this run's predictions and leaks
    files += save_table(context, "literature", run=run, caption=LITERATURE_CAPTION)
    if len(protocols) < 2:
        return files, {}
    try:
        differences = variant_differences(predictions, folds)
    except SerkitError as error:
        return files, {"variant_differences": str(error)}
    seeds = ", ".join(map(str, sorted(evaluation.at_shared_seeds(predictions)["seed"].unique())))
    caption = f"Differences of UA as fractions, p corrected for {len(differences)} pairs (Holm): {corpus}, seed {seeds}."
    files += save_table(differences, "variant_differences", caption=caption, **common | {"decimals": 4})
    return files, {}


def _remarks(run, corpus, predictions, parameters, partial):
    """What a reader must know before any number."""
    remarks = []
    if corpus != "iemocap":
        remarks.append(f"{corpus} is not IEMOCAP: this run can't speak about the paper's numbers.")
    remarks += sorted({runs.leak_notice(known) for known in parameters.values()} - {""})
    if partial:
        for variant, table in predictions.groupby("variant"):
            tested = tested_folds(table)
            lost = sorted(set(runs.planned_folds(run, variant) or []) - set(tested))
            missing = f"; missing: {', '.join(lost)}" if lost else ""
            remarks.append(f"{variant}: scores are of folds {', '.join(tested)} only{missing}.")
    return remarks


def _in_lines(table, decimals=1):
    """A table for printing: estimates with their intervals, a dash for what is not known."""

    def text(cell):
        if not isinstance(cell, Estimate):
            return cell
        interval = "" if pd.isna(cell.low) else f" [{cell.low:.1f}, {cell.high:.1f}]"
        return "–" if pd.isna(cell.value) else f"{cell.value:.1f}{interval}"

    return table.map(text).to_string(index=False, na_rep="–", float_format=f"{{:.{decimals}f}}".format)
