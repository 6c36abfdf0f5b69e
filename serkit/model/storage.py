"""A trained model as a folder, its card, and the checkpoints of the published code.

``config.json`` and ``model.safetensors`` are the network, ``features.json`` says how sound becomes
its input, ``README.md`` is the model card (its text: ``model_card.md``). All are text or plain
tensors: opening a folder runs no code from it.
"""

import dataclasses
import json
import math
import pickle
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2Config

from serkit.constants import (
    CHANCE_UA,
    LABELS,
    N_BINS,
    SAMPLE_RATE,
    SEGMENT_SAMPLES,
    SPEECH_ENCODER,
    VIEW_SETS,
)
from serkit.errors import ParameterError, WeightsError
from serkit.experiment import show_path
from serkit.features.images import SpectrogramScaler
from serkit.features.store import FEATURE_VERSION
from serkit.files import replacing
from serkit.model.coattention import PAPER, CoAttentionModel, ModelConfig
from serkit.recipe import Recipe
from serkit.runs import leak_notice, write_json

CURE = "train the model again with notebook 05_train_coattention, or copy the whole folder again"
CONTRACT = {  # what this version of serkit takes for granted about any model
    "labels": list(LABELS),
    "sample_rate": SAMPLE_RATE,  # Hz
    "segment_samples": SEGMENT_SAMPLES,
    "feature_version": FEATURE_VERSION,
}

CARD = Path(__file__).with_name("model_card.md")
LANGUAGES = {"emodb": "de"}  # of a corpus; others speak English

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


@dataclass(frozen=True, eq=False)
class ModelFolder:
    """An opened model folder."""

    folder: Path
    model: CoAttentionModel  # in evaluation mode, on the CPU
    recipe: Recipe
    scaler: SpectrogramScaler
    experiment: dict  # parameters of the training run: corpus, fold, seed, ...


def save_model(model, folder):
    """Write ``config.json`` and ``model.safetensors``."""
    folder = Path(folder)
    write_json(folder / "config.json", asdict(model.config))
    with replacing(folder / "model.safetensors") as partial:
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, partial)
        # safetensors lets nobody else read it: on a shared disk a run would be of use to its owner only
        shutil.copymode(folder / "config.json", partial)


def load_model(folder):
    """Read a model that ``save_model`` wrote; in evaluation mode.

    Raises
    ------
    WeightsError
        If a file is missing or damaged, or the two don't fit together; said of the file at fault.
    """
    folder = Path(folder)
    weights = folder / "model.safetensors"
    config = _read_config(folder)
    try:
        model = CoAttentionModel(config)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise _damaged(folder / "config.json", error) from error
    try:
        model.load_state_dict(load_file(weights))
    except FileNotFoundError:
        raise _missing(weights) from None
    except (OSError, SafetensorError) as error:
        raise _damaged(weights, error) from error
    except RuntimeError as error:  # torch lists every tensor that is missing or of another shape
        names = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise WeightsError(
            f"{show_path(weights)}: does not fit config.json beside it ({names[0][:200]}); {CURE}"
        ) from error
    return model.eval()


def describe_model(folder, *, recipe, scaler, experiment, metrics):
    """Add ``features.json`` and the model card to a folder that holds a saved model.

    Parameters
    ----------
    folder : path
    recipe : Recipe
        Of the features that it was trained on.
    scaler : SpectrogramScaler
        Fitted on its training segments.
    experiment : Experiment
        What it was trained on, and how.
    metrics : dict
        Scores of its test set, as `serkit.metrics.pooled_and_fold_mean` gives them.
    """
    folder = Path(folder)
    features = CONTRACT | {
        "recipe": asdict(recipe),
        "scaler": {"minimum": scaler.minimum.tolist(), "maximum": scaler.maximum.tolist()},  # dB
        "experiment": asdict(experiment),
    }
    write_json(folder / "features.json", features)
    card = model_card(_read_config(folder), recipe=recipe, experiment=experiment, metrics=metrics)
    (folder / "README.md").write_text(card, encoding="utf-8")


def open_model_folder(folder):
    """Read a model folder.

    Parameters
    ----------
    folder : path

    Returns
    -------
    ModelFolder

    Raises
    ------
    WeightsError
        If a file is missing or damaged, or the model's classes, features or input are not those
        of this version of serkit.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise WeightsError(
            f"model folder {show_path(folder)}: no such folder; train a model with notebook "
            "05_train_coattention or `serkit reproduce`, or give the folder that holds its config.json"
        )
    features = _read_features(folder / "features.json")
    return ModelFolder(folder, load_model(folder), **features)


def _read_config(folder):
    """The model's config alone, without its weights."""
    path = folder / "config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        return ModelConfig(**settings | {"cnn_channels": tuple(settings["cnn_channels"])})
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged(path, error) from error


def _read_features(path):
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        for name, value in CONTRACT.items():
            if record[name] != value:
                raise WeightsError(
                    f"{show_path(path)}: {name}={record[name]}, expected {value}; the model is for another version "
                    "of serkit: install that one, or train it again with notebook 05_train_coattention"
                )
        fields = {field.name for field in dataclasses.fields(Recipe)}
        if set(record["recipe"]) != fields:
            raise ValueError(f"recipe has {sorted(record['recipe'])}, expected {sorted(fields)}")
        limits = {name: np.array(record["scaler"][name], np.float32) for name in ("minimum", "maximum")}
        for name, limit in limits.items():
            if limit.shape != (N_BINS,) or not np.isfinite(limit).all():
                raise ValueError(
                    f"scaler {name} has shape {limit.shape}, expected {N_BINS} finite levels in dB"
                )
        return {
            "recipe": Recipe(**record["recipe"]),
            "scaler": SpectrogramScaler(**limits),
            "experiment": dict(record["experiment"]),
        }
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, ValueError, TypeError, KeyError, ParameterError) as error:
        raise _damaged(path, error) from error


def _missing(path):
    return WeightsError(f"model folder {show_path(path.parent)}: {path.name} is missing; {CURE}")


def _damaged(path, error):
    reason = f"{error} is missing" if isinstance(error, KeyError) else str(error).splitlines()[0][:200]
    return WeightsError(f"{show_path(path)}: damaged or unreadable ({reason}); {CURE}")


def model_card(config, *, recipe, experiment, metrics):
    """Text of a model card with Hugging Face's header.

    Parameters
    ----------
    config : ModelConfig
    recipe : Recipe
    experiment : Experiment
    metrics : dict
        ``wa_pooled`` and ``ua_pooled`` (fractions) and ``n_utterances`` of the test set.

    Returns
    -------
    str
        Markdown.
    """
    name = f"serkit-{experiment.corpus}-{experiment.variant}-fold{experiment.fold}-seed{experiment.seed}"
    percent = {key: 100 * metrics[f"{key}_pooled"] for key in ("wa", "ua")}
    header = ModelCardData(
        language=LANGUAGES.get(experiment.corpus, "en"),
        library_name="serkit",
        pipeline_tag="audio-classification",
        tags=["speech-emotion-recognition", "co-attention"],
        base_model=SPEECH_ENCODER if experiment.profile == "paper" else None,
        model_name=name,
        eval_results=[
            EvalResult(
                task_type="audio-classification",
                dataset_type=experiment.corpus,
                dataset_name=f"{experiment.corpus}, {experiment.by} {experiment.fold}",
                metric_type=kind,
                metric_name=f"{key.upper()} (%)",
                metric_value=round(percent[key], 2),
            )
            for key, kind in (("wa", "accuracy"), ("ua", "recall"))
            if math.isfinite(percent[key])
        ],
    )
    card = ModelCard.from_template(
        header, CARD, name=name, labels=LABELS, chance=CHANCE_UA, percent=percent, views=VIEW_SETS[config.views],
        config=config, recipe=recipe, experiment=experiment, metrics=metrics,
        leak=leak_notice({"selection": experiment.selection}),
    )  # fmt: skip
    return f"{card}\n"


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
    try:
        model.load_state_dict(ours)
    except RuntimeError as error:  # torch lists what is missing, unknown, or of another shape
        faults = "; ".join(line.strip() for line in str(error).splitlines()[1:])
        raise WeightsError(f"checkpoint does not fit the published model: {faults[:1000]}") from error
    return model.eval()
