"""Checkpoints of the published code: read as tensors, renamed, checked against the paper's model."""

import dataclasses
import pickle

import torch
from transformers import Wav2Vec2Config

from serkit.errors import WeightsError
from serkit.model.coattention import PAPER, CoAttentionModel

# name in the published checkpoint -> ours; more specific names first
PUBLISHED_NAMES = {
    "alexnet_model.features": "spectrogram_encoder.features",
    "post_spec_layer": "spectrogram_encoder.projection",
    "lstm_mfcc": "mfcc_encoder.lstm",
    "post_mfcc_layer": "mfcc_encoder.projection",
    "post_spec_mfcc_att_layer": "coattention",
    "wav2vec2_model": "speech_encoder",
    "post_wav_layer": "speech_projection",
    "post_att_layer_1": "fusion_1",
    "post_att_layer_2": "fusion_2",
    "post_att_layer_3": "classifier",
}
PUBLISHED_UNUSED = "alexnet_model.classifier."  # computed by the published code, never part of the logits
OLD_WEIGHT_NORM = {  # torch before 2.1 -> now
    "pos_conv_embed.conv.weight_g": "pos_conv_embed.conv.parametrizations.weight.original0",
    "pos_conv_embed.conv.weight_v": "pos_conv_embed.conv.parametrizations.weight.original1",
}


def load_published(path):
    """Model from a checkpoint file saved by the published code.

    Only tensors are read: a file that would run code when unpickled is refused.

    Raises
    ------
    WeightsError
        If the file is missing, holds anything but tensors, or does not fit.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(
            f"checkpoint {path}: can't be read as tensors ({reason}); expected a state_dict"
        ) from error
    if not isinstance(state, dict) or not all(torch.is_tensor(value) for value in state.values()):
        raise WeightsError(
            f"checkpoint {path}: expected a state_dict, names with tensors; save model.state_dict()"
        )
    return from_published_state_dict(state)


def from_published_state_dict(state):
    """The paper's model with weights saved by the published code.

    Parameters
    ----------
    state : dict of str to torch.Tensor
        ``load_published`` reads it from a file.

    Returns
    -------
    CoAttentionModel
        In evaluation mode. AlexNet's classifier is left out: the logits never used it.

    Raises
    ------
    WeightsError
        Listing what is missing, unknown, or of another shape.
    """
    ours = {}
    for name, value in state.items():
        name = name.removeprefix("module.")  # left by DataParallel
        for old, new in OLD_WEIGHT_NORM.items():
            name = name.replace(old, new)
        prefix = next((p for p in PUBLISHED_NAMES if name.startswith(p + ".")), None)
        if prefix:
            ours[PUBLISHED_NAMES[prefix] + name.removeprefix(prefix)] = value
        elif not name.startswith(PUBLISHED_UNUSED):
            ours[name] = value
    model = CoAttentionModel(dataclasses.replace(PAPER, speech=Wav2Vec2Config().to_diff_dict()))
    wanted = model.state_dict()
    faults = [f"missing {name}" for name in wanted if name not in ours]
    faults += [f"unknown {name}" for name in ours if name not in wanted]
    faults += [
        f"{name} is {tuple(ours[name].shape)}, expected {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in ours and ours[name].shape != value.shape
    ]
    if faults:
        raise WeightsError(
            f"checkpoint does not fit the published model: {len(faults)} faults: {'; '.join(faults[:20])}"
            + ("; ..." if len(faults) > 20 else "")
        )
    model.load_state_dict(ours)
    return model.eval()
