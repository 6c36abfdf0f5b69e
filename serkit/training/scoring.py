"""Scores of utterances from a model: mean over segments of log-softmax, and the prediction table."""

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.nn import functional as F

from serkit.errors import ParameterError
from serkit.metrics import PROBABILITY, unweighted_accuracy, utterance_probabilities, weighted_accuracy
from serkit.training.batches import load_batches, model_inputs

FUSED = "fused_"  # columns of the vectors: fused_1, fused_2, ...


def resolve_precision(precision, profile="demo", device=""):
    """accelerate's name of a precision.

    ``auto`` is bf16 or fp16 on a GPU; on a CPU it is float32, but bf16 for the paper's model where
    the CPU multiplies bf16 matrices in hardware (AMX): the demo's layers are too small to gain by it. fp16 is
    refused without a GPU with a ``ParameterError``.
    """
    if precision == "fp16" and (device == "cpu" if device else not on_gpu()):
        raise ParameterError("precision='fp16' without a GPU, expected auto, float32 or bf16 on a CPU")
    if precision == "auto":
        if torch.cuda.is_available():
            return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        fast = profile == "paper" and torch.cpu.get_capabilities().get("amx_bf16", False)
        return "bf16" if fast else "no"
    return "no" if precision == "float32" else precision


def on_gpu():
    """Whether this machine has a GPU, NVIDIA's or Apple's."""
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def make_accelerator(precision, profile="demo"):
    """accelerate's view of device and precision; a notebook may change its precision and go on."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(mixed_precision=resolve_precision(precision, profile), cpu=not on_gpu())


@torch.no_grad()
def predict(accelerator, model, dataset, scaler, batch_size):
    """Score every utterance of a dataset: mean over its segments of log-softmax.

    Returns
    -------
    pd.DataFrame
        Index ``utterance_id``; ``loss`` (mean cross-entropy of its segments), ``truth`` (class
        index), one column of mean log-probability for each label, and ``fused_1 ...``: mean over
        segments of ``fusion_hidden_2``, from which the classifier tells the emotion.
    """
    model.eval()
    parts = []
    for batch in load_batches(dataset, batch_size, on_gpu=accelerator.device.type == "cuda"):
        with accelerator.autocast():
            output = model(**model_inputs(batch, scaler, dataset.store.recipe, accelerator.device))
        log_probability = F.log_softmax(output.logits.float(), dim=1)
        parts.append(torch.cat([log_probability, output.fusion_hidden_2.float()], dim=1).cpu())
    scores = torch.cat(parts).numpy()
    labels = model.config.labels
    names = [*labels, *(f"{FUSED}{i}" for i in range(1, scores.shape[1] - len(labels) + 1))]
    table = pd.DataFrame(scores.astype(np.float64), columns=names)
    table["loss"] = -scores[np.arange(len(scores)), dataset.labels]
    table["truth"] = dataset.labels
    return mean_over_segments(table, dataset.store.segments["utterance_id"].to_numpy()[dataset.rows])


def mean_over_segments(table, utterances):
    """Scores of utterances from those of their segments; ``utterances`` names the one that each row is of."""
    means = table.groupby(utterances, sort=False).mean().rename_axis("utterance_id")
    return means.assign(truth=means["truth"].astype(int))


def score_utterances(scored):
    """WA, UA and loss of a table that ``predict`` made."""
    labels = _classes(scored)
    truth, guess = scored["truth"].to_numpy(), scored[labels].to_numpy().argmax(axis=1)
    wa, ua = weighted_accuracy(truth, guess, labels), unweighted_accuracy(truth, guess, labels)
    return {"loss": float(scored["loss"].mean()), "wa": wa, "ua": ua}


def _classes(scored):
    """Labels of a table that ``predict`` or a baseline made: what is neither truth, loss nor a vector."""
    return [name for name in scored if name not in ("truth", "loss") and not name.startswith(FUSED)]


def prediction_table(scored, manifest, experiment):
    """Rows of ``predictions.parquet``, from the table that ``predict`` made of each split."""
    tables, training = [], {name: getattr(experiment, name) for name in ("fold", "seed", "variant")}
    about = manifest.set_index("utterance_id")[["speaker", "session"]].astype(object)
    for split, scores in scored.items():
        labels = np.array(_classes(scores))
        log_probability = scores[labels].to_numpy()
        table = about.loc[scores.index].rename_axis("utterance_id").reset_index()
        table = table.assign(truth=labels[scores["truth"]], prediction=labels[log_probability.argmax(axis=1)])
        table[[PROBABILITY + label for label in labels]] = utterance_probabilities(log_probability)
        tables.append(table.assign(**training, split=split))
    return pd.concat(tables, ignore_index=True)


def vector_table(scored):
    """Rows of ``embedding.parquet`` from the table that ``predict`` made of the test set."""
    return scored.filter(regex=f"^{FUSED}").astype(np.float32).reset_index()
