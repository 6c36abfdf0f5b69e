"""What a linear classifier reaches on the folds of a run, the least that a network has to beat; and what people reach.

``probe``: the states of the speech encoder that a training began with, averaged over the frames of each segment, and
logistic regression. ``egemaps``: 88 acoustic descriptors of each utterance [1]_ and a linear SVM. Both are fitted on
values standardised over the training utterances, with scikit-learn's C = 1: nothing is tuned, so that validation
utterances have no part in it. Scores of segments become that of an utterance as a network's do.

Predictions are kept beside each finished fold; all tables follow from these files.

References
----------
.. [1] Eyben et al.: The Geneva Minimalistic Acoustic Parameter Set (GeMAPS) for Voice Research and Affective
   Computing, IEEE Transactions on Affective Computing 7, 2016. Version 02, as openSMILE computes it.
"""

from contextlib import suppress
from dataclasses import replace
from statistics import multimode

import numpy as np
import pandas as pd
import torch
from accelerate.utils import set_seed
from scipy.spatial.distance import jensenshannon
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from tqdm.auto import tqdm

from serkit import features, metrics, runs, training
from serkit.constants import LABELS, SAMPLE_RATE, VIEW_SETS
from serkit.errors import RunError, SerkitError, reported_as
from serkit.evaluation.attention import open_store
from serkit.evaluation.intervals import mean_over_speakers, percent
from serkit.evaluation.predictions import WORDS, scored_rows
from serkit.files import replacing
from serkit.folds import find_fold, make_folds, task_rows
from serkit.model import create_model, encoders, open_model_folder

LEAST_RATINGS = 3  # of an utterance: one annotator against a majority of two others at least
PROBE, EGEMAPS = "probe", "egemaps"
CLASSIFIERS = {PROBE: LogisticRegression(max_iter=1000), EGEMAPS: LinearSVC(random_state=0, max_iter=10_000)}
FILE = "baseline_{}.parquet"  # beside the predictions of a fold
BATCH = 64  # segments read at once


def make_baselines(run, variant, everything=False):
    """Write the baselines of a variant's finished folds where they are not there yet.

    Parameters
    ----------
    run, variant : str
    everything : bool, optional
        Also what takes longer: ``egemaps``, and the probe of an encoder whose states are not kept. By default only
        the probe of a frozen encoder is made.

    Returns
    -------
    list of str
        A sentence for each baseline that can't be made.
    """
    folders, faults = runs.finished_folders(run, variant), []
    first = runs.read_experiment(folders[0])
    heard = first.reads_states or (everything and "speech" in VIEW_SETS[first.views])
    for name in [PROBE] * heard + [EGEMAPS] * everything:
        try:
            if todo := [folder for folder in folders if _read(folder, name) is None]:
                _make(name, todo)
        except (SerkitError, OSError) as error:
            faults.append(f"{variant}: no baseline {name}: {error}")
    return faults


def _read(folder, name):
    """A baseline of a fold; None if there is none that can be read, of the utterances that were tested."""
    predictions = runs.read_predictions(folder)
    with suppress(RunError):
        made = runs.read_table(folder / FILE.format(name), "")
        tested = predictions.loc[predictions["split"] == "test"], made
        rows, expected = (set(zip(table["utterance_id"], table["truth"], strict=True)) for table in tested)
        return made if rows == expected else None


def _make(name, folders):
    """Write a baseline into folders of one variant."""
    manifest, values = runs.open_manifest(runs.read_experiment(folders[0]).corpus), {}
    labels = metrics.classes_of(manifest)
    label_of = task_rows(manifest).set_index("utterance_id")["label"].map(labels.index)
    for folder in folders:
        experiment = runs.read_experiment(folder)
        if experiment.seed not in values:  # random weights are others for each
            opened = open_model_folder(folder / "model")
            store = open_store(experiment, opened.recipe)
            seen = egemaps(store, manifest) if name == EGEMAPS else mean_states(store, source_model(opened))
            values[experiment.seed] = seen  # a row for each segment or utterance
        fold = find_fold(make_folds(manifest, *experiment.protocol), experiment.fold)
        scored = classify(values[experiment.seed], label_of, fold, CLASSIFIERS[name], labels)
        table = training.prediction_table({"test": scored}, manifest, experiment)
        table["variant"] = f"{experiment.variant}_{name}"
        with replacing(folder / FILE.format(name)) as partial:
            table.to_parquet(partial, index=False, write_page_checksum=True)


def source_model(opened):
    """The model of a fold with the speech encoder that its training began with.

    Parameters
    ----------
    opened : ModelFolder
        A frozen encoder is as it was. Of others the source is read again; random weights are drawn with the seed of
        the training.
    """
    if opened.model.config.encoder_training == "frozen":
        return opened.model
    set_seed(opened.experiment["seed"])
    config = replace(opened.model.config, encoder_training="frozen", cnn_weights=encoders.RANDOM, sources={})
    return create_model(config)


@torch.inference_mode()
def mean_states(store, model):
    """States of a speech encoder averaged over the frames of each segment, in one pass over those on disk.

    Parameters
    ----------
    store : FeatureStore
    model : CoAttentionModel
        Of several layers the last one is taken.

    Returns
    -------
    pd.DataFrame, shape (N, D)
        Index: utterance of each segment. Padding takes part where the recipe lets it (D1).
    """
    states = training.build_states(store, model, training.make_accelerator("auto"))
    model, parts = model.cpu().eval(), []
    num_samples = torch.tensor(store.segments["num_samples"].to_numpy())
    for rows in np.array_split(np.arange(len(store)), -(-len(store) // BATCH)):
        frames = torch.from_numpy(states.take(rows)[:, -1]).float()  # (B, T', D)
        weights = model.frame_weights([], frames, num_samples[rows] if store.recipe.mask_padding else None)
        parts.append(torch.bmm(weights[:, None], frames)[:, 0])  # (B, D)
    return pd.DataFrame(torch.cat(parts).numpy(), store.segments["utterance_id"])


def egemaps(store, manifest):
    """Functionals of eGeMAPSv02, computed once for a feature store and kept in its folder.

    Parameters
    ----------
    store : FeatureStore
    manifest : pd.DataFrame
        Says where the sound of its utterances lies.

    Returns
    -------
    pd.DataFrame, shape (number of utterances, 88)
        Index: utterance. What openSMILE can't tell of a very short one is 0.

    Raises
    ------
    RunError, AudioError
        If opensmile is not installed, or a sound can't be read.
    """
    path = store.folder / "egemaps.parquet"
    if path.is_file():
        return runs.read_table(path, "delete it: it is made again")
    cure = "install it with `pip install opensmile`"
    with reported_as(RunError, "opensmile is not installed", cure, ImportError):
        import opensmile
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    names = store.utterances["utterance_id"]
    paths = manifest.set_index("utterance_id")["path"].loc[names]
    sounds = tqdm(paths, EGEMAPS, mininterval=2)
    parts = [smile.process_signal(features.audio.read(sound), SAMPLE_RATE) for sound in sounds]
    table = pd.concat(parts).fillna(0.0).set_index(pd.Index(names))
    with replacing(path) as partial:
        table.to_parquet(partial, write_page_checksum=True)
    return table


def classify(values, label_of, fold, classifier, labels=LABELS):
    """Fit a linear classifier on the training utterances of a fold, and score those to be tested.

    Parameters
    ----------
    values : pd.DataFrame
        One row for each segment or utterance, indexed by the utterance's id.
    label_of : pd.Series of int
        Class of each utterance.
    fold : Fold
    classifier : sklearn classifier
        With a ``decision_function``, whose softmax is taken for probabilities: that of an SVM is not calibrated.
    labels : sequence of str, optional
        The classes, in order.

    Returns
    -------
    pd.DataFrame
        As :func:`serkit.training.scoring.prediction_table` takes it.
    """
    label = label_of.loc[values.index].to_numpy()
    train, test = (values.index.isin(utterances) for utterances in (fold.train, fold.test))
    fitted = make_pipeline(StandardScaler(), classifier).fit(values[train], label[train])
    scores = fitted.decision_function(values[test])
    if scores.ndim == 1:  # of two classes only the second has one
        scores = np.stack([-scores, scores], axis=1) / 2
    scores = pd.DataFrame(scores, columns=list(labels)).assign(truth=label[test])
    return training.mean_over_segments(scores, values.index[test])


def baseline_table(run, predictions, folds):
    """Each variant beside the baselines that all its finished folds have.

    Parameters
    ----------
    run : str
    predictions : pd.DataFrame
        Of all its variants.
    folds : dict of str to list of str
        Of each variant.

    Returns
    -------
    pd.DataFrame
        ``variant, baseline, UA, UA of baseline, WA of baseline`` (%, mean over folds) and ``difference`` (points of
        UA, variant minus baseline), with 95 % intervals over speakers from five speakers on. Empty without baselines.

    Raises
    ------
    RunError, ParameterError, FoldError
        As :func:`serkit.evaluation.check_predictions`.
    """
    records = []
    for variant, table in predictions.groupby("variant"):
        for name in CLASSIFIERS:
            made = [_read(folder, name) for folder in runs.find_folds(run, variant)]
            if any(part is None for part in made):
                continue
            rows, baseline = (scored_rows(part, folds[variant]) for part in (table, pd.concat(made)))
            record = {"variant": variant, "baseline": name, "UA": percent(rows)}
            record |= {"UA of baseline": percent(baseline), "WA of baseline": percent(baseline, score="wa")}
            records.append(record | {"difference": percent(rows, baseline)})
    return pd.DataFrame(records)


def below_baseline(table):
    """A sentence for each variant that lies below one of its baselines.

    Parameters
    ----------
    table : pd.DataFrame
        From :func:`baseline_table`.

    Returns
    -------
    list of str
    """
    sentences = []
    for row in table.to_dict("records"):
        difference = row["difference"]
        if difference.value < 0:
            sentence = WORDS["baselines"]["chance" if difference.high >= 0 else "shown"]
            sentences.append(sentence.format_map(row | {"points": difference.signed(" points")}))
    return sentences


def annotator_rows(manifest, predictions):
    """Each annotator against the majority of the others, and the model against the same majority.

    Parameters
    ----------
    manifest : pd.DataFrame
        With ``ratings``: what each annotator chose, separated by semicolons.
    predictions : pd.DataFrame
        Prediction table of one variant; test rows count.

    Returns
    -------
    pd.DataFrame
        A row for each utterance, annotator and seed whose others agree on a class: ``utterance_id, speaker, fold, seed,
        variant, truth`` (that majority), ``person`` and ``model`` (what the two said), ``agreement`` (share of all
        annotators that chose the majority), ``share_<label>`` of all annotators. Empty where nobody rated.
    """
    labels, records = metrics.labels_of(predictions), []
    for name, text in manifest.set_index("utterance_id")["ratings"].dropna().items():
        ratings = text.split(";")
        shares = {f"share_{label}": ratings.count(label) / len(ratings) for label in labels}
        for number, person in enumerate(ratings if len(ratings) >= LEAST_RATINGS else ()):
            truth, *ties = multimode(ratings[:number] + ratings[number + 1 :])
            if truth in labels and not ties:
                about = {"utterance_id": name, "truth": truth, "person": person}
                records.append(about | {"agreement": ratings.count(truth) / len(ratings)} | shares)
    tested = predictions[predictions["split"] == "test"].rename(columns={"prediction": "model"})
    rated = pd.DataFrame(records, columns=None if records else ["utterance_id"])
    return rated.merge(tested.drop(columns="truth"), on="utterance_id")


def people_table(manifest, predictions):
    """People and the model on the same utterances, against the same majority: WA, UA, and their distributions.

    Returns
    -------
    pd.DataFrame
        ``who, agreement`` (all utterances, those on which all annotators agree, and the others), ``wa, ua`` (percent,
        with intervals over speakers), ``n_utterances``; empty where nobody rated. By agreement the model alone: of three
        annotators, those who agree are right by definition, and of the others only who stands alone can be compared.
    distance : Estimate or None
        Jensen-Shannon distance (base 2, 0 to 1) between the model's probabilities and the annotators' shares.
    """
    rows = annotator_rows(manifest, predictions)
    if rows.empty:
        return pd.DataFrame(), None
    labels = metrics.labels_of(predictions)
    wrong, records = rows["truth"].map({label: labels[label == labels[0]] for label in labels}), []
    agree = rows["agreement"] == 1
    parts = {"all": rows, "all agree": rows[agree], "some differ": rows[~agree]}
    for name, part in parts.items():
        for who in ("person", "model")[name != "all" :] if len(part) else ():
            # frustrated, say, is no class and no right answer
            scored = part.assign(prediction=part[who].where(part[who].isin(labels), wrong))
            scores = {score: percent(scored, score=score) for score in ("wa", "ua")}
            n = part["utterance_id"].nunique()
            records.append({"who": who, "agreement": name} | scores | {"n_utterances": n})
    return pd.DataFrame(records), soft_distance(rows)


def soft_distance(rows):
    """Mean Jensen-Shannon distance of a model to its annotators, with a 95 % interval over speakers.

    Parameters
    ----------
    rows : pd.DataFrame
        As :func:`annotator_rows` gives them. Choices outside of the task are left out of the shares.

    Returns
    -------
    Estimate
    """
    labels = metrics.labels_of(rows)
    rows = rows.drop_duplicates(["utterance_id", "seed"])
    shares = rows[[f"share_{label}" for label in labels]].to_numpy()
    probabilities = rows[[metrics.PROBABILITY + label for label in labels]].to_numpy()
    distance = jensenshannon(shares, probabilities, base=2, axis=1)
    return mean_over_speakers(pd.Series(np.nan_to_num(distance)).groupby(rows["speaker"].to_numpy()).mean())
