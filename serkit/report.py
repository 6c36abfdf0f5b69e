"""Scores of a run beside the paper's, from prediction tables only."""

import json

import pandas as pd

from serkit import runs
from serkit.constants import CHANCE_UA, LABELS, PAPER_RESULTS
from serkit.export import leak_notice
from serkit.metrics import confusion_matrix, pooled_and_fold_mean
from serkit.tables import save_table

COLUMNS = ("folds", "utterances", "wa_fold_mean", "ua_fold_mean", "wa_pooled", "ua_pooled")


def score_summary(run):
    """One row for each variant and seed of a run.

    Parameters
    ----------
    run : str

    Returns
    -------
    pd.DataFrame
        Index ``variant, seed``; number of folds and utterances; WA and UA in percent, as mean
        over folds (the paper's way) and over all utterances pooled.
    """
    rows = []
    for (variant, seed), table in runs.load_predictions(run).groupby(["variant", "seed"]):
        scores = pooled_and_fold_mean(table)
        percent = {name: round(100 * scores[name], 2) for name in COLUMNS[2:]}
        rows.append({
            "variant": variant, "seed": seed, "folds": scores["n_folds"], "utterances": scores["n_utterances"]
        } | percent)  # fmt: skip
    return pd.DataFrame(rows)


def paper_comparison(run):
    """The paper's numbers, and this run's where it is allowed to stand beside them.

    Only IEMOCAP, the ``paper`` profile and all folds can speak about the paper; the cells of any
    other run stay empty.

    Returns
    -------
    pd.DataFrame
        One row per protocol of the paper: paper WA and UA, this run's WA and UA under the
        published and under the clean protocol, all in percent, fold means over all seeds.
    """
    summary, parameters = score_summary(run), run_parameters(run)
    needed = {"session": 5, "speaker": 10}
    rows = []
    for by, (wa, ua) in PAPER_RESULTS.items():
        row = {"protocol": f"leave one {by} out", "paper_wa": wa, "paper_ua": ua}
        for recipe, selection in (("published", "published"), ("corrected", "clean")):
            match = summary[
                (summary["variant"] == f"{recipe}_{selection}_{by}_paper") & (summary["folds"] == needed[by])
            ]
            speaks = len(match) > 0 and parameters["corpus"] == "iemocap"
            for score in ("wa", "ua"):
                row[f"{recipe}_{score}"] = match[f"{score}_fold_mean"].mean() if speaks else float("nan")
        rows.append(row)
    return pd.DataFrame(rows)


def run_parameters(run):
    """Parameters of the first finished fold: corpus, recipe, selection, ..."""
    folder = runs.finished_folders(run)[0]
    return json.loads((folder / "experiment.json").read_text())["parameters"]


def write_report(run):
    """Print the scores and confusion matrix of every variant and save the tables."""
    summary, parameters = score_summary(run), run_parameters(run)
    print(f"run {run}: corpus {parameters['corpus']}, chance UA {CHANCE_UA:.0f} %\n")
    print(summary.to_string(index=False), "\n")
    for variant, table in runs.load_predictions(run).groupby("variant"):
        tested = table[table["split"] == "test"]
        print(f"{variant}: confusion matrix, truth in rows, utterances over all seeds")
        print(confusion_matrix(tested["truth"], tested["prediction"], LABELS).to_string(), "\n")
    if summary["variant"].str.contains("_published_").any():
        parameters |= {"selection": "published"}  # one leaking row is enough to say so under the table
    caption = f"Scores in percent on {parameters['corpus']}, speakers unseen in training."
    files = save_table(summary, "scores_by_variant", run=run, caption=caption, parameters=parameters)
    comparison = paper_comparison(run)
    caption = "Weighted and unweighted accuracy in percent, mean over folds; empty: not run on IEMOCAP."
    files += save_table(comparison, "paper_comparison", run=run, caption=caption, parameters=parameters)
    if parameters["corpus"] != "iemocap":
        print(f"{parameters['corpus']} is not IEMOCAP: this run can't speak about the paper's numbers.")
    if leak_notice(parameters):
        print(leak_notice(parameters))
    print("written: " + ", ".join(str(runs.show_path(path)) for path in files))
