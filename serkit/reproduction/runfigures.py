"""All figures that the prediction tables of a run can give, made and saved in one go."""

from contextlib import suppress
from functools import cache
from itertools import combinations

import matplotlib.pyplot as plt
import pandas as pd

from serkit.errors import SerkitError
from serkit.evaluation import intervals
from serkit.evaluation.comparison import at_shared_seeds
from serkit.figures import certainty, confusions, embedding, foldcurves, mistakes
from serkit.figures.plots import paper_style
from serkit.figures.saving import DIGEST, digest_of, save_figure

MAX_PAIRS = 6  # differences of variants, the first ones by name


def save_run_figures(run, predictions, manifest, parameters, folds=None, root=None):
    """Make and save the figures of every variant, and the differences between variants.

    Parameters
    ----------
    run : str
    predictions : pd.DataFrame
        Checked prediction table of all variants.
    manifest : pd.DataFrame or None
        Of the corpus, for durations and ratings.
    parameters : dict of str to dict
        Of each variant, see :func:`serkit.runs.shared_parameters`.
    folds : dict of str to list of str, optional
        Folds of each variant that count, where not all have been run.
    root : path, optional
        As in :func:`serkit.figures.saving.save_figure`.

    Returns
    -------
    files : list of Path
    not_made : dict of str to str
        Stems of figures that this run can't have, and why.
    """
    files, not_made = [], {}
    tables = dict(list(predictions.groupby("variant")))
    for variant, table in tables.items():
        jobs = _jobs(run, variant, table, manifest, (folds or {}).get(variant))
        protocol = describe(table, parameters[variant])
        about = parameters[variant] | {"variant": variant, DIGEST: digest_of(table)}
        for stem, job in jobs.items():
            name = f"{stem}_{stem_of(variant)}"
            _save(name, job, f"{job[0]}: {protocol}.", run, about, root, files, not_made)
    pairs = list(combinations(tables, 2))
    if len(pairs) > MAX_PAIRS:
        not_made["confusion_difference"] = (
            f"shown for the first {MAX_PAIRS} of {len(pairs)} pairs of variants"
        )
    for a, b in pairs[:MAX_PAIRS]:
        stem = _difference_stem(a, b)
        try:
            one, other = _pair(tables[a], tables[b])
        except SerkitError as error:
            not_made[stem] = str(error)
            continue
        job = _difference(one, other, (folds or {}).get(a))
        leaks = "published" in (parameters[a].get("selection"), parameters[b].get("selection"))
        about = {"corpus": parameters[a].get("corpus"), "a": a, "b": b, DIGEST: digest_of(predictions)}
        about |= {"selection": "published"} if leaks else {}
        caption = f"{job[0]}, A = {a}, B = {b}: {describe(one, parameters[a], name=False)}."
        _save(stem, job, caption, run, about, root, files, not_made)
    return files, not_made


def run_numbers(run, predictions, manifest, folds=None):
    """The numbers behind every figure of :func:`save_run_figures`, to be computed when they are asked for.

    Parameters
    ----------
    run, predictions, manifest, folds
        As in :func:`save_run_figures`.

    Returns
    -------
    dict of str to callable
        Stem -> what gives the DataFrame that the CSV was written from.
    """
    numbers, folds, tables = {}, folds or {}, dict(list(predictions.groupby("variant")))
    for variant, table in tables.items():
        jobs = _jobs(run, variant, table, manifest, folds.get(variant))
        numbers |= {f"{stem}_{stem_of(variant)}": job[4] for stem, job in jobs.items() if len(job) > 1}
    for a, b in list(combinations(tables, 2))[:MAX_PAIRS]:
        with suppress(SerkitError):  # no seed in common: there is no such figure
            numbers[_difference_stem(a, b)] = _difference(*_pair(tables[a], tables[b]), folds.get(a))[4]
    return numbers


def describe(table, parameters, name=True):
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


def stem_of(variant):
    """A variant's name as part of a file name.

    Examples
    --------
    >>> stem_of("published+D2_clean_session_paper")
    'published-with-D2_clean_session_paper'
    """
    return variant.replace("+", "-with-")


def _jobs(run, variant, table, manifest, folds):
    """Stem -> (caption, columns, height in inches, plot, plotted numbers)."""
    tested = table[table["split"] == "test"]
    height = confusions.speaker_grid(tested["speaker"].nunique())[2]

    def histories():
        return foldcurves.read_histories(run, variant)

    jobs = {
        "speaker_confusions": (
            "Confusion matrix of each unseen speaker, truth in rows, utterances in the cells", 2, height,
            lambda ax: confusions.plot_speaker_confusions(table, ax, folds=folds),
            lambda: confusions.speaker_confusions(table, folds)),
        "recall_intervals": (
            "Recall of each class with 95 % intervals over speakers", 1, 2.4,
            lambda ax: certainty.plot_recall_intervals(table, ax, folds=folds),
            lambda: intervals.class_recall(table, folds=folds)),
        "reliability": (
            "Share of right answers by confidence", 1, 2.8,
            lambda ax: certainty.plot_reliability(table, ax, folds=folds),
            lambda: intervals.reliability_table(table, folds=folds)),
        "fold_curves": (
            "UA by epoch, each fold and seed thin, their mean thick", 1, 2.4,
            lambda ax: foldcurves.plot_fold_curves(histories(), ax), histories),
        "duration_accuracy": (
            "Share of right utterances by duration with 95 % intervals over speakers", 2, 2.4,
            lambda ax: mistakes.plot_duration_accuracy(table, manifest, ax, folds=folds),
            lambda: mistakes.duration_accuracy(table, manifest, folds=folds)),
        "rating_mistakes": (
            "Share of mistakes by rated valence and activation, area: utterances", 1, 2.8,
            lambda ax: mistakes.plot_rating_mistakes(table, manifest, ax, folds=folds),
            lambda: mistakes.rating_mistakes(table, manifest, folds=folds)),
    }  # fmt: skip
    if manifest is None:
        lost = "the manifest of the corpus is missing; run notebook 01_prepare_corpus"
        jobs |= dict.fromkeys(("duration_accuracy", "rating_mistakes"), (lost,))
    return jobs | _embedding_jobs(run, table, folds, tested["fold"].nunique(), tested["seed"].min())


def _embedding_jobs(run, table, folds, n_folds, seed):
    """As :func:`_jobs`; both figures share the points, which take seconds to find."""
    panels = embedding.fold_grid(n_folds)[2:]
    vectors = (
        f"t-SNE of the fused vectors of the network of each fold for itself, seed {seed}, at most "
        f"{embedding.MAX_POINTS // n_folds} test utterances a fold, at even steps"
    )

    @cache
    def points():
        return embedding.fold_points(embedding.read_vectors(run, table, folds))

    return {
        "embedding_emotion": (
            f"{vectors}, by emotion", *panels, lambda ax: embedding.plot_fold_points(points(), ax), points),
        "embedding_speaker": (
            f"{vectors}, by speaker", *panels,
            lambda ax: embedding.plot_fold_points(points(), ax, by="speaker"), points),
    }  # fmt: skip


def _difference_stem(a, b):
    return f"confusion_difference_{stem_of(a)}__{stem_of(b)}"


def _pair(a, b):
    """Predictions of two variants, at the seeds that both have."""
    both = at_shared_seeds(pd.concat([a, b], ignore_index=True))
    one = both["variant"] == a["variant"].iloc[0]
    return both[one], both[~one]


def _difference(a, b, folds):
    return (
        "Confusion matrix of A minus that of B, row shares in percentage points", 1, 2.6,
        lambda ax: confusions.plot_confusion_difference(a, b, ax, folds=folds),
        lambda: confusions.confusion_difference(a, b, folds),
    )  # fmt: skip


def _save(stem, job, caption, run, parameters, root, files, not_made):
    """One figure; what can't be made is noted with its reason and stops no other."""
    if len(job) == 1:
        not_made[stem] = job[0]
        return
    _, columns, height, plot, numbers = job
    try:
        data = numbers()
        with paper_style(columns=columns, height=height):
            figure, ax = plt.subplots()
            try:
                plot(ax)
                files += save_figure(
                    figure, stem, run=run, data=data, caption=caption, parameters=parameters, root=root
                )
            finally:
                plt.close(figure)
    except SerkitError as error:
        not_made[stem] = str(error)
