"""What turns gradients into steps: AdamW, its learning rates, class weights, and the seed of each step."""

import numpy as np
import torch
from transformers import get_scheduler

from serkit.constants import LABELS

SCHEDULES = {
    "constant": "constant_with_warmup",
    "linear": "linear",
    "cosine": "cosine",
}  # transformers' names


def make_optimizer(model, experiment, batches):
    """AdamW and its learning-rate schedule; the speech encoder is a group of its own.

    The schedule counts on all ``epochs``: stopping early leaves its end out.
    """
    encoder = {id(value) for value in model.speech_encoder.parameters()} if "speech" in model.views else set()
    groups = [
        {
            "params": [p for p in model.parameters() if p.requires_grad and (id(p) in encoder) is inside],
            "lr": lr,
        }
        for inside, lr in (
            (True, experiment.encoder_learning_rate or experiment.learning_rate),
            (False, experiment.learning_rate),
        )
    ]
    groups = [group for group in groups if group["params"]]
    optimizer = torch.optim.AdamW(groups, weight_decay=experiment.weight_decay)
    steps = batches * experiment.epochs
    warmup = round(experiment.warmup * steps)
    return optimizer, get_scheduler(SCHEDULES[experiment.schedule], optimizer, warmup, steps)


def class_weights(labels):
    """Weight of each class, N / (4 n): all classes count alike.

    >>> class_weights(np.array([0, 1, 1, 2, 3, 3, 3, 3])).tolist()
    [2.0, 1.0, 2.0, 0.5]
    """
    counts = np.bincount(labels, minlength=len(LABELS))
    return len(labels) / (len(LABELS) * np.maximum(counts, 1))


def seed_of_step(seed, epoch, batch, process=0):
    """Seed of the random draws of one optimiser step in one process."""
    return int(np.random.SeedSequence([seed, epoch, batch, process]).generate_state(1)[0])
