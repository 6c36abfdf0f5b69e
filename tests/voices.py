"""Something that sounds like speech, and a model that has learned nothing but answers differently to it."""

import numpy as np
import torch

from serkit.experiment import Experiment
from serkit.features.views import SpectrogramScaler
from serkit.model.coattention import DEMO, create_model
from serkit.model.storage import describe_model, save_model

METRICS = {"wa_pooled": 0.5, "ua_pooled": 0.5, "n_utterances": 8}
SCALER = SpectrogramScaler(np.full(200, -80, np.float32), np.full(200, -5, np.float32))


def voice(seconds, rate=16_000, pitch=120.0, seed=0):
    """Something with pitch, harmonics and syllables; nothing above 3 kHz, so that 8 kHz hold it all."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * rate)) / rate
    glide = 2 * np.pi * np.cumsum(pitch * (1 + 0.2 * np.sin(2 * np.pi * 0.7 * time_s))) / rate
    tone = sum(np.sin(k * glide + rng.uniform(0, 6)) / k for k in range(1, 12))
    return (0.1 * tone * (0.55 + 0.45 * np.sin(2 * np.pi * 3 * time_s))).astype(np.float32)


def write_model_folder(folder, model, *, scaler=SCALER, experiment=None, metrics=METRICS):
    """A model as training leaves it: weights, what they were trained on, and a card."""
    save_model(model, folder)
    describe_model(folder, scaler=scaler, experiment=experiment or Experiment(), metrics=metrics)


def write_model(folder, recipe):
    """A network that has learned nothing but answers differently to different sounds."""
    torch.manual_seed(1)
    model = create_model(DEMO)
    with torch.no_grad():
        model.classifier.weight *= 20
    model.eval()
    write_model_folder(folder, model, experiment=Experiment(recipe=recipe.name))
    return folder
