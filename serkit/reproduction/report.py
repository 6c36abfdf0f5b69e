"""The report of a run: checked predictions, tables, figures, verdicts on the paper's claims, one page of it all."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import combinations, islice

import pandas as pd
from matplotlib.figure import Figure

from serkit import evaluation, figures, metrics, runs
from serkit.errors import ParameterError, SerkitError
from serkit.evaluation.predictions import speakers_of, tested_folds
from serkit.figures import DIGEST, digest_of
from serkit.files import read_toml
from serkit.reproduction.page import ABOUT_WEIGHTS, read_catalogue, write_catalogue, write_page

SCORE_NAMES = {"wa": "WA", "ua": "UA", "macro_f1": "macro-F1"}
CAPTIONS = read_toml(__file__, "captions.toml")  # by stem
MAX_PAIRS = 6  # differences of variants, the first ones by name
COLUMN, TALL = (1, 2.4), (1, 2.8)  # sizes of figures: columns of a page, and height in inches


@dataclass(frozen=True)
class Item:
    """A table or figure of a run, which is computed and drawn when it is asked for."""

    stem: str
    caption: str
    numbers: Callable  # () -> pd.DataFrame: what the CSV holds
    parameters: dict  # of its sidecar
    plot: Callable | None = None  # (numbers, ax) -> ax; None: it is a table
    size: tuple = COLUMN
    decimals: int = 1  # of a table

    @classmethod
    def of(cls, stem, numbers, parameters, protocol="", suffix="", words=None, **drawing):
        """With the caption of its stem: ``words`` are filled in, and the protocol follows."""
        caption = CAPTIONS[stem].format(**(words or {})) + f". {protocol}." * bool(protocol)
        return cls(stem + suffix, caption, numbers, parameters, **drawing)

    def save(self, run, root=None):
        """Compute it, draw it and write its files; returns their paths."""
        data = self.numbers()
        about = {"run": run, "caption": self.caption, "parameters": self.parameters, "root": root}
        if self.plot is None:
            return figures.save_table(data, self.stem, decimals=self.decimals, **about)
        with figures.paper_style(*self.size):
            figure = Figure()
            self.plot(data, figure.subplots())
            return figures.save_figure(figure, self.stem, data=data, **about)


def checked_predictions(run, partial=False, variant=""):
    """Predictions of a run that may be averaged, and the folds to be averaged over.

    Parameters
    ----------
    run : str
    partial : bool
        Whether a run without all its folds will do. Every variant and seed must still have the same.
    variant : str, optional
        Only this one is read; default all.

    Returns
    -------
    predictions : pd.DataFrame
    folds : dict of str to list of str
        Of each variant.

    Raises
    ------
    RunError, ParameterError, FoldError
        Naming what is wrong, a fold that is not there included, see :func:`serkit.runs.planned_folds`.
    """
    predictions, folds = runs.load_predictions(run, variant), {}
    for name, table in predictions.groupby("variant"):
        folds[name] = tested_folds(table)
        evaluation.check_predictions(table, folds[name] if partial else runs.planned_folds(run, name))
    if not partial:
        evaluation.check_predictions(predictions)
    return predictions, folds


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
        several = f"run {run!r} holds the corpora {sorted(map(str, corpora))}"
        raise ParameterError(f"{several}, expected one; give each corpus its own run")
    return parameters, corpora.pop()


def score_intervals(predictions, folds):
    """Scores of each variant in percent, with 95 % intervals over speakers.

    Parameters
    ----------
    predictions : pd.DataFrame
    folds : dict of str to list of str
        Of each variant, from :func:`checked_predictions`.

    Returns
    -------
    pd.DataFrame
        One row per variant and score: ``fold mean`` and ``pooled`` as
        :class:`serkit.evaluation.Estimate` (without interval for fewer than 5 speakers), and the
        standard deviations between folds and between seeds (NaN with one) in points.
    """
    records = []
    for variant, table in predictions.groupby("variant"):
        rows = evaluation.scored_rows(table, folds[variant])
        units = metrics.score_table(rows, metrics.UNIT)
        for score, name in SCORE_NAMES.items():
            record = {"variant": variant, "score": name}
            for average in evaluation.intervals.AVERAGES[::-1]:
                record[average.replace("_", " ")] = evaluation.percent(rows, score=score, average=average)
            for what in ("fold", "seed"):
                record[f"sd of {what}s"] = 100 * units.groupby(what)[score].mean().std()
            records.append(record)
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
    print("\n".join(["", *_remarks(run, predictions, made_with(run, predictions), folds)]))
    print("scores in % with 95 % intervals over speakers, standard deviations in points:\n")
    print(figures.table_markdown(score_intervals(predictions, folds), decimals=1), flush=True)


def write_report(run, others=(), partial=False, baselines=False):
    """Check a run, print its scores and verdicts, and save tables, figures, catalogue and page.

    Parameters
    ----------
    run : str
    others : sequence of str
        Further runs that stand beside the paper, such as that of the published protocol.
    partial : bool
        See :func:`checked_predictions`; every caption says how many folds it is about.
    baselines : bool
        Whether baselines that take longer are made too, see :func:`serkit.evaluation.make_baselines`.

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
    made = parameters, corpus = made_with(run, predictions)
    chance = f"Corpus {corpus}, chance UA {metrics.chance_ua(metrics.labels_of(predictions)):.0f} %."
    facts = [chance, *_remarks(run, predictions, made, folds, partial)]
    found = [evaluation.look_into(run, variant, folds[variant])[0] for variant in parameters]
    for variant in parameters:
        facts += evaluation.make_baselines(run, variant, baselines)
    across, others = _across(run, predictions, corpus, others)
    items = run_tables(run, predictions, folds, parameters, others)
    for item in items:
        facts += evaluation.below_baseline(item.numbers()) if item.stem == "baselines" else []
    items += run_figures(run, predictions, folds, parameters) + across
    print("\n".join([f"run {run}", *facts, *found, ""]))
    not_made = {}
    for item in items:
        try:
            files = item.save(run)
        except (SerkitError, OSError, ValueError) as error:  # stops no other
            not_made[item.stem] = str(error)
            continue
        if item.plot is None:
            print(next(path for path in files if path.suffix == ".md").read_text(encoding="utf-8"))
    digests = digests_of(predictions)
    entries = read_catalogue(run, digests=digests, not_made=not_made)
    catalogue = write_catalogue(run, entries)
    notes = {ABOUT_WEIGHTS: found}
    page = write_page(run, summary=facts, entries=entries, notes=notes, predictions=digests[0])
    for entry in entries:
        if entry.faults:
            print(f"{entry.stem}: {'; '.join(entry.faults)}")
    print(f"written: {runs.show_path(catalogue)} and all that it lists, and {runs.show_path(page)}")
    return page


def digests_of(predictions):
    """Digests that figures of a run may have: of all its predictions, and of each variant's."""
    return [digest_of(predictions), *(digest_of(table) for _, table in predictions.groupby("variant"))]


def _across(run, predictions, corpus, others):
    """Table and figure of this run and of those on other corpora; and the runs on the same one, which stand beside the paper."""
    corpus_of = {name: runs.shared_parameters(name).get("corpus") for name in others}
    elsewhere = [name for name in others if corpus_of[name] != corpus]
    if not elsewhere:
        return [], others
    names = run, *elsewhere
    about = {"runs": names, DIGEST: digest_of(predictions)}
    table = evaluation.across_corpora(*names)
    plots = {"across_corpora_table": None, "across_corpora": figures.plot_across}
    items = [Item.of(stem, lambda: table, about, plot=plot) for stem, plot in plots.items()]
    return items, [name for name in others if name not in elsewhere]


def run_tables(run, predictions, folds, parameters, others=()):
    """Scores, the comparison with the paper, results of others, and differences of variants.

    Parameters
    ----------
    run : str
    predictions, folds
        From :func:`checked_predictions`.
    parameters : dict of str to dict
        Of each variant, from :func:`made_with`.
    others : sequence of str
        Further runs that stand beside the paper.

    Returns
    -------
    list of Item

    Raises
    ------
    RunError, ParameterError, FoldError
        As :func:`serkit.evaluation.paper_comparison`.
    """
    comparison = evaluation.paper_comparison(run, *others)
    corpus = next(iter(parameters.values())).get("corpus")
    about = {"corpus": corpus, DIGEST: digest_of(predictions)} | _leak(parameters.values())
    beside = {"others": {name: digest_of(runs.load_predictions(name)) for name in others}} if others else {}
    protocol = _protocol(predictions, runs.in_common(parameters.values()), run)
    several = len(parameters) > 1
    hidden = [] if several else ["variant"]  # a column that says the same in every row
    baselines = evaluation.baseline_table(run, predictions, folds)

    def scores():
        return score_intervals(predictions, folds).drop(columns=hidden)

    words = {"least": evaluation.intervals.MIN_CLUSTERS}
    items = [Item.of("scores_by_variant", scores, about, protocol, words=words)]
    if len(baselines):
        items.append(Item.of("baselines", lambda: baselines, about, protocol))
    manifest = runs.find_manifest(corpus)
    if manifest is not None and "ratings" in manifest and not several:
        people, distance = evaluation.people_table(manifest, predictions)
        words = {"distance": distance} if len(people) else {}
        items += [Item.of("people", lambda: people, about, protocol, words=words)] if words else []
    words = {"speakers": speakers_of(corpus), "rule": evaluation.claims.RULE}
    items.append(Item.of("paper_comparison", lambda: comparison, about | beside, words=words, decimals=2))
    literature = evaluation.read_literature()[evaluation.claims.LITERATURE_COLUMNS]
    items.append(Item("literature", evaluation.claims.LITERATURE_CAPTION, lambda: literature, {}, decimals=2))
    if several:
        differences = partial(_differences, predictions, folds)
        items.append(Item.of("variant_differences", differences, about, protocol))
    return items


def run_figures(run, predictions, folds, parameters):
    """The figures of every variant, and the differences between variants.

    Parameters, returns: as :func:`run_tables`.
    """
    made, tables = [], dict(list(predictions.groupby("variant")))
    for variant, table in tables.items():
        about = parameters[variant] | {"variant": variant, DIGEST: digest_of(table)}
        suffix = f"_{runs.stem_of(variant)}" if len(tables) > 1 else ""
        item = partial(Item.of, parameters=about, protocol=_protocol(table, about, run), suffix=suffix)
        made += _of_variant(run, variant, table, folds[variant], item)
        made += _of_attention(run, variant, folds[variant], item)
    digest = digest_of(predictions)
    for pair in islice(combinations(tables, 2), MAX_PAIRS):
        made.append(_difference(run, [tables[name] for name in pair], folds[pair[0]], parameters, digest))
    return made


def _of_variant(run, variant, table, folds, item):
    """Figures of a variant; ``item`` is :meth:`Item.of` with all that they have in common."""
    tested = table[table["split"] == "test"]
    n_folds, n_speakers = tested["fold"].nunique(), tested["speaker"].nunique()
    manifest = runs.find_manifest(item.keywords["parameters"].get("corpus"))
    tempered = metrics.calibrated(table)  # empty without validation speakers
    grid = 2, figures.speaker_grid(n_speakers)[2]

    @cache
    def points():  # both figures share the points, which take seconds to find
        return figures.fold_points(figures.read_vectors(run, table, folds))

    rows = [  # stem, numbers, plot, size, data of both
        ("speaker_confusions", figures.speaker_confusions, figures.plot_speaker_confusions, grid, table),
        ("recall_intervals", evaluation.class_recall, figures.plot_recall_intervals, COLUMN, table),
        ("reliability", evaluation.reliability_table, figures.plot_reliability, TALL, table),
        ("reliability_calibrated", evaluation.reliability_table, figures.plot_reliability, TALL, tempered),
        ("risk_coverage", evaluation.risk_coverage, figures.plot_risk, COLUMN, tempered),
    ]
    made = [
        item(stem, partial(numbers, data, folds=folds), plot=partial(_draw, plot, data, folds), size=size)
        for stem, numbers, plot, size, data in rows
        if len(data)
    ]
    if manifest is not None:
        slices = cache(partial(evaluation.slice_table, table, manifest, folds))
        of_recall = ["slice", "part", *metrics.labels_of(table)]
        made += [
            item("slices", slices, plot=figures.plot_slices, size=(2, 3.4)),
            item("slice_scores", lambda: slices().drop(columns=of_recall[2:])),
            item("slice_recalls", lambda: slices()[of_recall]),
        ]
    curves = partial(figures.plot_history, what="ua", chance=metrics.chance_ua(metrics.labels_of(table)))
    words = {"seed": tested["seed"].min(), "most": figures.curves.MAX_POINTS // n_folds}
    on_a_plane = partial(item, numbers=points, words=words, size=figures.fold_grid(n_folds)[2:])
    return [
        *made,
        item("fold_curves", partial(figures.read_histories, run, variant), plot=curves),
        on_a_plane("embedding_emotion", plot=figures.plot_fold_points),
        on_a_plane("embedding_speaker", plot=partial(figures.plot_fold_points, by="speaker")),
    ]


def _draw(plot, predictions, folds, numbers, ax):
    """Draw what is drawn from predictions, and not from its own numbers."""
    return plot(predictions, ax, folds=folds)


def _of_attention(run, variant, folds, item):
    """As :func:`_of_variant`: what was measured of the co-attention, if it was for all folds."""
    measured = [(folder / runs.ATTENTION).is_file() for folder in runs.find_folds(run, variant)]
    if not all(measured or [False]):
        return []
    tables = cache(partial(evaluation.attention_tables, run, variant, folds))
    size = 2, figures.stem_height(len(folds))
    return [
        item("attention", lambda: tables()[0], decimals=2),
        item("attention_worth", lambda: tables()[1]),
        item("attention_weights", lambda: tables()[2], plot=figures.plot_stems, size=size),
    ]


def _differences(predictions, folds):
    """Differences of UA in points between the variants, at the seeds that all of them have."""
    table = evaluation.compare_many(evaluation.at_shared_seeds(predictions), folds=next(iter(folds.values())))
    points = 100 * table[["difference", "low", "high"]].to_numpy()
    about = table[["variant_a", "variant_b"]].set_axis(["A", "B"], axis=1)
    return about.assign(difference=[evaluation.Estimate(*ends) for ends in points], p_holm=table["p_holm"])


def _difference(run, pair, folds, parameters, digest):
    """How often A gives an answer more often than B, at the seeds that both have."""
    names = [table["variant"].iloc[0] for table in pair]
    known = [parameters[name] for name in names]

    def compared():
        both = evaluation.at_shared_seeds(pd.concat(pair, ignore_index=True))
        return [both[both["variant"] == name] for name in names]

    origin = {"corpus": known[0].get("corpus"), "a": names[0], "b": names[1], DIGEST: digest}
    shared = pair[0][pair[0]["seed"].isin(pair[1]["seed"])]
    return Item.of(
        "confusion_difference",
        lambda: figures.confusion_difference(*compared(), folds),
        origin | _leak(known),
        _protocol(shared, runs.in_common(known), run),
        "_" + "__".join(map(runs.stem_of, names)),
        dict(zip("ab", map(evaluation.settings_in_words, known), strict=True)),
        plot=lambda _, ax: figures.plot_confusion_difference(*compared(), ax, folds=folds),
        size=(1, 2.6),
    )


def _leak(parameters):
    """One leaking variant is enough to say so under a table or figure."""
    leaks = any(known.get("selection") == "published" for known in parameters)
    return {"selection": "published"} if leaks else {}


def _protocol(table, parameters, run):
    """Protocol of predictions as a sentence of a caption."""
    planned = runs.planned_folds(run, next(iter(table["variant"]), "*"))
    words = evaluation.protocol_in_words(parameters, table, planned)
    return words[0].upper() + words[1:]


def _remarks(run, predictions, made, folds, partial=False):
    """What a reader must know before any number; ``made`` is from :func:`made_with`."""
    (parameters, corpus), remarks = made, []
    if corpus != "iemocap":
        remarks.append(f"{corpus} is not IEMOCAP: this run can't speak about the paper's numbers.")
    remarks += sorted({runs.leak_notice(known) for known in parameters.values()} - {""})
    for variant, tested in folds.items():
        lost = sorted(set(runs.planned_folds(run, variant) or []) - set(tested))
        if partial or lost:
            missing = f"; missing: {', '.join(lost)}" if lost else ""
            remarks.append(f"{variant}: scores are of folds {', '.join(tested)} only{missing}.")
        remarks += _weak_trainings(run, variant, metrics.labels_of(predictions))
    return remarks


def _weak_trainings(run, variant, labels):
    """Of a variant's trainings, those that hardly learned."""
    try:
        trainings = figures.read_histories(run, variant).groupby(["fold", "seed"])
        said = {name: metrics.hardly_learned(history, labels) for name, history in trainings}
    except (SerkitError, KeyError):  # a damaged history: said of the figure that can't be drawn
        return []
    weak = [(f"fold {fold}, seed {seed}", text) for (fold, seed), text in said.items() if text]
    count = f"WARNING: {variant}: {len(weak)} of {len(said)} trainings hardly learned"
    return [f"{count}; {weak[0][0]}: {weak[0][1]}."] if weak else []
