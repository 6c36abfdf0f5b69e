"""What the co-attention of a finished fold does, and what it is worth there.

Every test segment goes through the fold's model once. Its weights, one for each frame of the speech encoder, are kept
beside the fold (``attention.parquet``), and so is what the same network answers with other weights in their place
(``attention_swapped.parquet``): only what comes behind the encoders is computed again. All tables follow from these
two files. They say what this network makes of its weights, not what a network trained with others would have learned.
"""

import numpy as np
import pandas as pd
import torch

from serkit import runs
from serkit.constants import GUIDED, HOP_LENGTH, SEED, SEGMENT_FRAMES, SEGMENT_S, VIEW_SETS
from serkit.errors import SerkitError
from serkit.evaluation.intervals import Estimate, percent
from serkit.evaluation.predictions import WORDS, scored_rows
from serkit.features.store import FeatureStore, store_key
from serkit.files import replacing
from serkit.model.storage import open_model_folder
from serkit.training import build_states, encode, model_inputs, real_frames, scoring, segment_batch

SILENCE_DB = -40.0  # dB below the loudest frame of the segment; what is below counts as silence
BATCH = 16  # segments at once
OWN, MEAN, EQUAL, OTHER = "own", "fold's mean", "equal", "another segment's"
CURE = "delete it if it is there and call `serkit report`, which makes it again"


def look_into(run, variant, folds=None):
    """Measure the finished folds of a variant where that was not done yet, and say what was found.

    Parameters
    ----------
    run, variant : str
    folds : sequence of str, optional
        See :func:`serkit.evaluation.predictions.check_predictions`.

    Returns
    -------
    text : str
        A paragraph of numbers; or the sentence that says why there are none.
    tables : list of pd.DataFrame
        Those of :func:`attention_tables`, or none.
    """
    about = runs.shared_parameters(run, variant)
    views = VIEW_SETS[about["views"]]
    if about["fusion"] not in GUIDED or "speech" not in views or len(views) == 1:
        why = f"views={about['views']}, fusion={about['fusion']}: no view decides about the frames of another"
        return f"{variant}: there is no co-attention to look into ({why}).", []
    try:
        for folder in runs.finished_folders(run, variant):
            if not (folder / runs.ATTENTION).is_file():
                measure_fold(folder)
        tables = attention_tables(run, variant, folds)
    except SerkitError as error:
        return f"{variant}: the co-attention can't be looked into: {error}", []
    return f"{variant}: {weights_text(tables[0])} {worth_text(tables[1])}", tables


def measure_fold(folder):
    """Write ``attention_swapped.parquet`` and ``attention.parquet`` of a finished fold.

    Parameters
    ----------
    folder : Path
        Run folder; its model and the feature store of its corpus are read.

    Raises
    ------
    RunError, WeightsError, StoreError
        If model, manifest or feature store are missing or damaged.
    """
    experiment, opened = runs.read_experiment(folder), open_model_folder(folder / "model")
    store, predictions = open_store(experiment, opened.recipe), runs.read_predictions(folder)
    tested = predictions[predictions["split"] == "test"]
    rows = store.rows_of(tested["utterance_id"])
    print(f"{runs.show_path(folder)}: looking into the co-attention of {len(rows)} segments, once")
    accelerator = scoring.make_accelerator("auto", experiment.profile)
    states = build_states(store, opened.model, accelerator) if experiment.reads_states else None
    segments, scores = weigh_segments(opened.model, opened.scaler, store, rows, accelerator, states)
    labels, swapped = opened.model.config.labels, []
    truth = segments["utterance_id"].map(tested.set_index("utterance_id")["truth"]).map(labels.index)
    for name, values in scores.items():
        of_segments = pd.DataFrame(values.astype(np.float64), columns=labels).assign(truth=truth)
        scored = scoring.mean_over_segments(of_segments, segments["utterance_id"].to_numpy())
        swapped.append(scoring.prediction_table({"test": scored}, tested, experiment).assign(weights=name))
    segments = segments.assign(fold=experiment.fold, seed=experiment.seed)
    for name, table in ((runs.SWAPPED, pd.concat(swapped)), (runs.ATTENTION, segments)):
        with replacing(folder / name) as partial:
            table.to_parquet(partial, index=False, write_page_checksum=True)


def open_store(experiment, recipe):
    """The features that a finished training was made with, seen through the recipe of its model folder.

    Raises
    ------
    RunError, StoreError
        If manifest or feature store of the corpus are not on this machine.
    """
    key = store_key(runs.open_manifest(experiment.corpus), recipe)
    return FeatureStore(runs.processed_folder(experiment.corpus) / key, recipe)


@torch.inference_mode()
def weigh_segments(model, scaler, store, rows, accelerator, states=None):
    """Weights of some segments, and the answers with these and with others in their place.

    Parameters
    ----------
    model : CoAttentionModel
        One of the ``GUIDED`` fusions.
    scaler : SpectrogramScaler
    store : FeatureStore
    rows : np.ndarray of int, shape (N,)
        Segments of the store.
    accelerator : accelerate.Accelerator
    states : EncoderStates, optional
        Of a frozen encoder; without them the encoder runs.

    Returns
    -------
    segments : pd.DataFrame
        ``utterance_id, segment``; ``length_<view>`` of the vectors that are joined; ``weights``, T' of them; and
        ``level_db`` of each frame, see :func:`frame_levels`.
    scores : dict of str to np.ndarray, shape (N, 4)
        Log-probabilities with each of :func:`other_weights`.
    """
    device, recipe = accelerator.device, store.recipe
    model = model.to(device).eval()
    batches = np.array_split(np.arange(len(rows)), -(-len(rows) // BATCH))

    guides, own, real, levels = [], [], [], []
    for places in batches:  # the speech encoder has no part in the weights
        features = store.read(rows[places])
        inputs = model_inputs(segment_batch(features), scaler, recipe, device)
        with accelerator.autocast():
            guides.append(model.guide_vectors(inputs["spectrogram"], inputs["mfcc"]))
            frames = torch.zeros(len(places), model.n_encoder_frames, 1, device=device)
            own.append(model.frame_weights(guides[-1], frames, inputs["num_samples"]).float().cpu().numpy())
        real.append(real_frames(model, torch.from_numpy(features.num_samples), recipe))
        levels.append(frame_levels(features.waveform, real[-1]))
    own, real = np.concatenate(own), np.concatenate(real)
    allowed = real if recipe.mask_padding else np.ones_like(real)
    weights = other_weights(own, real, allowed, sum_to_one=model.config.fusion != "coattention")

    scores, lengths = {name: [] for name in weights}, []
    for places, vectors in zip(batches, guides, strict=True):
        layers = states.take(rows[places]) if states else encode(store, model, rows[places], accelerator)
        with accelerator.autocast():
            frames = model.mix_layers(torch.from_numpy(layers).to(device))
            for name, values in weights.items():
                output = model.classify(vectors, frames, torch.from_numpy(values[places]).to(device))
                scores[name].append(output.logits.float().log_softmax(dim=1).cpu().numpy())
                if name == OWN:
                    joined = torch.stack([*vectors, output.speech_projection], dim=1)  # (B, n_views, hidden)
                    lengths.append(joined.float().norm(dim=2).cpu().numpy())
    segments = store.segments.iloc[rows][["utterance_id", "segment"]].reset_index(drop=True)
    segments[[f"length_{view}" for view in model.views]] = np.concatenate(lengths)
    segments["weights"], segments["level_db"] = list(own), list(np.concatenate(levels))
    return segments, {name: np.concatenate(parts) for name, parts in scores.items()}


def frame_levels(waveforms, real):
    """Level of each speech encoder frame in dB below the loudest one of its segment.

    Parameters
    ----------
    waveforms : np.ndarray, shape (N, 48000)
    real : np.ndarray of bool, shape (N, T')
        Whether a frame holds speech and not padding.

    Returns
    -------
    np.ndarray, shape (N, T'), float32, values in [-120, 0] dB
        Mean power over the 20 ms (for 149 or 150 frames) from the frame's first sample on. NaN in padding.
    """
    n_frames = real.shape[1]
    hop = HOP_LENGTH * round(SEGMENT_FRAMES / n_frames)
    pieces = waveforms[:, : n_frames * hop].reshape(len(real), n_frames, hop)
    power = np.where(real, np.square(pieces).mean(axis=2), 0.0)
    peak = power.max(axis=1, keepdims=True)
    relative = np.maximum(power / np.where(peak > 0, peak, 1.0), 1e-12)
    return np.where(real, 10 * np.log10(relative), np.nan).astype(np.float32)


def mean_weights(weights, real):
    """A fold's mean weight of each frame, over the segments in which it is no padding; shape (T',).

    >>> mean_weights(np.array([[1.0, 2.0], [3.0, 0.0]]), np.array([[True, True], [True, False]])).tolist()
    [2.0, 2.0]
    """
    return pd.DataFrame(np.where(real, weights, np.nan)).mean().fillna(0.0).to_numpy()


def other_weights(own, real, allowed, *, sum_to_one):
    """Weights to be set in place of each segment's own.

    Parameters
    ----------
    own : np.ndarray, shape (N, T')
    real : np.ndarray of bool, shape (N, T')
        Whether a frame holds speech and not padding.
    allowed : np.ndarray of bool, shape (N, T')
        Frames to which the model can give weight; the others get none here either.
    sum_to_one : bool
        Whether the model's weights do.

    Returns
    -------
    dict of str to np.ndarray, shape (N, T'), float32
        The segment's own; the fold's mean, so that nothing depends on the segment; the mean of that over all frames,
        so that nothing depends on the frame either; and those of the next segment in a list sorted by how much of a
        segment is no padding, in an order drawn once by a fixed seed among segments of the same length.

    Examples
    --------
    >>> own, all_real = np.array([[1.0, 3.0], [3.0, 5.0]]), np.ones((2, 2), dtype=bool)
    >>> for name, values in other_weights(own, all_real, all_real, sum_to_one=False).items():
    ...     print(name, values.tolist())
    own [[1.0, 3.0], [3.0, 5.0]]
    fold's mean [[2.0, 4.0], [2.0, 4.0]]
    equal [[3.0, 3.0], [3.0, 3.0]]
    another segment's [[3.0, 5.0], [1.0, 3.0]]
    """
    mean = mean_weights(own, real)
    drawn = np.random.default_rng(SEED).permutation(len(own))
    order = np.lexsort((drawn, real.sum(axis=1)))
    next_to = np.empty_like(order)
    next_to[order] = np.roll(order, -1)
    weights = {OWN: own}
    for name, values in ((MEAN, mean), (EQUAL, np.full_like(mean, mean.mean())), (OTHER, own[next_to])):
        weights[name] = np.where(allowed, values, 0.0)
        if sum_to_one:
            weights[name] /= np.maximum(weights[name].sum(axis=1, keepdims=True), 1e-12)
    return {name: values.astype(np.float32) for name, values in weights.items()}


def attention_tables(run, variant, folds=None):
    """Everything that follows from what was measured of a variant.

    Parameters
    ----------
    run, variant, folds
        As in :func:`look_into`.

    Returns
    -------
    list of pd.DataFrame
        From :func:`attention_table`, :func:`worth_table` and :func:`attention_stems`.

    Raises
    ------
    RunError, ParameterError, FoldError
        If a fold was not measured, or as :func:`serkit.evaluation.predictions.check_predictions`.
    """
    names, folders = (runs.ATTENTION, runs.SWAPPED), runs.finished_folders(run, variant)
    parts = [[runs.read_table(folder / name, CURE) for folder in folders] for name in names]
    segments, swapped = (pd.concat(tables, ignore_index=True) for tables in parts)
    return [attention_table(segments), worth_table(swapped, folds), attention_stems(segments)]


def attention_table(segments):
    """What the weights of each fold look like.

    Parameters
    ----------
    segments : pd.DataFrame
        ``attention.parquet`` of all folds and seeds of a variant.

    Returns
    -------
    pd.DataFrame
        One row per fold and seed, means over its test segments. ``correlation`` of a segment's weights with the
        fold's mean over the frames that are no padding (segments whose weights are all equal are left out);
        ``unused``, frames that no segment gives any weight; ``effective``, the number of frames as the participation
        ratio (sum of weights)^2 / (sum of squares): K for K equal weights; ``on silence`` and ``on padding``, shares
        of the weight, beside ``silent``, the share of silence (40 dB below the segment's loudest frame) in what is no
        padding, and ``padded``; ``no weight``, segments without any; ``length_<view>`` of the joined vectors. Shares
        in percent.
    """
    records = []
    for (fold, seed), rows in segments.groupby(["fold", "seed"]):
        weights, level = np.stack(rows["weights"].to_numpy()), np.stack(rows["level_db"].to_numpy())
        real, silent, total = ~np.isnan(level), level <= SILENCE_DB, weights.sum(axis=1)
        heard = total > 0
        share = weights[heard] / total[heard, None]
        shares = {
            "unused": (weights == 0).all(axis=0),
            "on silence": (share * silent[heard]).sum(axis=1), "silent": silent[real],
            "on padding": (share * ~real[heard]).sum(axis=1), "padded": ~real,
            "no weight": ~heard,
        }  # fmt: skip
        record = {"fold": fold, "seed": seed, "segments": len(rows), "frames": weights.shape[1]}
        record["correlation"] = correlations(weights, real).mean()
        record["effective"] = pd.Series(1 / np.square(share).sum(axis=1)).mean()
        record |= {name: 100 * pd.Series(values.ravel()).mean() for name, values in shares.items()}
        records.append(record | rows.filter(like="length_").mean().to_dict())
    return pd.DataFrame(records)


def correlations(weights, real):
    """Pearson's r of each segment's weights with the fold's mean over its real frames; NaN where either is constant.

    Parameters
    ----------
    weights : np.ndarray, shape (N, T')
    real : np.ndarray of bool, shape (N, T')

    Returns
    -------
    pd.Series, length N
    """
    mean, values = mean_weights(weights, real), []
    for own, here in zip(weights, real, strict=True):
        pair = np.array([own[here], mean[here]])
        flat = here.sum() < 2 or (np.ptp(pair, axis=1) <= 1e-6 * pair.max(axis=1)).any()  # up to rounding
        values.append(np.nan if flat else np.corrcoef(pair)[0, 1])
    return pd.Series(values, dtype=float)


def worth_table(swapped, folds=None):
    """UA with each segment's own weights and with others in their place.

    Parameters
    ----------
    swapped : pd.DataFrame
        ``attention_swapped.parquet`` of all folds and seeds of a variant.
    folds : sequence of str, optional
        See :func:`serkit.evaluation.predictions.check_predictions`.

    Returns
    -------
    pd.DataFrame
        ``weights``; ``UA`` (%, mean over folds) and ``difference`` from that with own weights (points), both with
        95 % intervals over speakers from five speakers on; ``changed``, the share of answers that are others (%).
    """
    tables = {name: scored_rows(rows, folds) for name, rows in swapped.groupby("weights", sort=False)}
    own, records = tables[OWN], []
    for name, rows in tables.items():
        difference = Estimate(np.nan) if name == OWN else percent(rows, own)
        changed = 100 * (rows["prediction"] != own["prediction"]).mean()
        records.append({"weights": name, "UA": percent(rows), "difference": difference, "changed": changed})
    return pd.DataFrame(records)


def weights_text(table):
    """What :func:`attention_table` says of the weights, in sentences."""
    mean = table.drop(columns="fold").mean()
    lengths = mean.filter(like="length_").rename(lambda name: name.removeprefix("length_"))
    alike = WORDS["attention"]["constant" if np.isnan(mean["correlation"]) else "alike"].format_map(mean)
    lengths = ", ".join(f"{view} {value:.2g}" for view, value in lengths.items())
    return WORDS["attention"]["weights"].format_map(dict(mean) | {"alike": alike, "lengths": lengths})


def worth_text(worth):
    """What :func:`worth_table` says of other weights, in sentences, and what does not follow."""
    change = dict(zip(worth["weights"], worth["difference"], strict=True))
    points = {name: cell.signed() for name, cell in change.items()}
    _, low, high = change[MEAN]
    verdict = "helps" if high < 0 else "harms" if low > 0 else "few" if np.isnan(low) else "open"
    return WORDS["attention"]["worth"].format_map(points | {"verdict": WORDS["attention"][verdict]})


def attention_stems(segments):
    """Weights to be drawn, for each fold of the lowest seed: their mean, a typical segment, and the least typical.

    Parameters
    ----------
    segments : pd.DataFrame
        ``attention.parquet`` of all folds and seeds of a variant.

    Returns
    -------
    pd.DataFrame
        ``fold, panel`` (its title); ``time_s`` of the middle of each frame in the segment; ``padding``, the share of
        segments in which the frame is padding; ``weight``, the mean over the others, and ``low`` and ``high``, their
        10th and 90th percentile (NaN where it always is padding).
    """
    parts, first = [], segments[segments["seed"] == segments["seed"].min()]
    for fold, rows in first.groupby("fold"):
        weights, level = np.stack(rows["weights"].to_numpy()), np.stack(rows["level_db"].to_numpy())
        real, time_s = ~np.isnan(level), (np.arange(weights.shape[1]) + 0.5) * SEGMENT_S / weights.shape[1]
        r = correlations(weights, real)
        order = np.argsort(r.to_numpy())  # NaN comes last
        drawn = {f"fold {fold}: mean of {len(rows)} segments": slice(None)}
        for name, place in (("typical", order[r.notna().sum() // 2]), ("least typical", order[0])):
            drawn[f"{name}: r = {r[place]:.2f}".replace("-", "−")] = [place]
        for panel, places in drawn.items():
            some = weights[places]
            shown = pd.DataFrame(np.where(real[places] | (len(some) == 1), some, np.nan))
            padding, low, high = 1 - real[places].mean(axis=0), shown.quantile(0.1), shown.quantile(0.9)
            about = {"fold": fold, "panel": panel, "time_s": time_s, "padding": padding}
            parts.append(pd.DataFrame(about | {"weight": shown.mean(), "low": low, "high": high}))
    return pd.concat(parts, ignore_index=True)
