"""A trained model as a folder: everything that turns a sound file into probabilities, and its card.

``config.json`` and ``model.safetensors`` are the network (`serkit.model.coattention.save_model`),
``features.json`` says how sound becomes its input, ``README.md`` is the model card. All are text
or plain tensors: opening a folder runs no code from it.
"""

import dataclasses
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from serkit.constants import LABELS, N_BINS, SAMPLE_RATE, SEGMENT_SAMPLES
from serkit.errors import ParameterError, WeightsError
from serkit.experiment import show_path
from serkit.features.images import SpectrogramScaler
from serkit.features.store import FEATURE_VERSION
from serkit.model.coattention import CoAttentionModel, ModelConfig, load_model, save_model
from serkit.model.modelcard import model_card
from serkit.recipe import Recipe
from serkit.runs import write_json

CURE = "train the model again with notebook 05_train_coattention, or copy the whole folder again"


@dataclass(frozen=True, eq=False)
class ModelFolder:
    """An opened model folder."""

    folder: Path
    model: CoAttentionModel  # in evaluation mode, on the CPU
    recipe: Recipe
    scaler: SpectrogramScaler
    experiment: dict  # parameters of the training run: corpus, fold, seed, ...


def write_model_folder(folder, model, *, recipe, scaler, experiment, metrics):
    """Write a model with all that is needed to use it, and the card that says what it is.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    model : CoAttentionModel
    recipe : Recipe
        Of the features that it was trained on.
    scaler : SpectrogramScaler
        Fitted on its training segments.
    experiment : Experiment
        What it was trained on, and how.
    metrics : dict
        Scores of its test set, as `serkit.metrics.pooled_and_fold_mean` gives them.
    """
    save_model(model, folder)
    describe_model(folder, recipe=recipe, scaler=scaler, experiment=experiment, metrics=metrics)


def describe_model(folder, *, recipe, scaler, experiment, metrics):
    """Add ``features.json`` and the model card to a folder that holds a saved model.

    Parameters as in `write_model_folder`.
    """
    folder = Path(folder)
    config = _read_config(folder)
    features = {
        "labels": list(LABELS),
        "sample_rate": SAMPLE_RATE,  # Hz
        "segment_samples": SEGMENT_SAMPLES,
        "feature_version": FEATURE_VERSION,
        "recipe": asdict(recipe),
        "scaler": {"minimum": scaler.minimum.tolist(), "maximum": scaler.maximum.tolist()},  # dB
        "experiment": asdict(experiment),
    }
    write_json(folder / "features.json", features)
    card = model_card(config, recipe=recipe, experiment=experiment, metrics=metrics)
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
    features = _read_features(folder)
    return ModelFolder(folder, _read_model(folder), **features)


def _read_config(folder):
    """The model's config alone, without its weights."""
    path = folder / "config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        return ModelConfig(**settings | {"cnn_channels": tuple(settings["cnn_channels"])})
    except FileNotFoundError:
        raise WeightsError(f"model folder {show_path(folder)}: config.json is missing; {CURE}") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged(path, error) from error


def _read_model(folder):
    """Network and weights; a fault is said of the file that has it."""
    _read_config(folder)
    try:
        return load_model(folder)
    except (OSError, SafetensorError) as error:
        raise _damaged(folder / "model.safetensors", error) from error
    except RuntimeError as error:  # torch lists every tensor that is missing or of another shape
        names = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise WeightsError(
            f"{show_path(folder / 'model.safetensors')}: does not fit config.json beside it ({names[0][:200]}); {CURE}"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # structure that can't be built
        raise _damaged(folder / "config.json", error) from error


def _read_features(folder):
    path = folder / "features.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        _check_contract(path, record)
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
        raise WeightsError(f"model folder {show_path(folder)}: features.json is missing; {CURE}") from None
    except (OSError, ValueError, TypeError, KeyError, ParameterError) as error:
        raise _damaged(path, error) from error


def _check_contract(path, record):
    """What this version of serkit takes for granted about any model."""
    wanted = {
        "labels": list(LABELS),
        "sample_rate": SAMPLE_RATE,
        "segment_samples": SEGMENT_SAMPLES,
        "feature_version": FEATURE_VERSION,
    }
    for name, value in wanted.items():
        if record[name] != value:
            raise WeightsError(
                f"{show_path(path)}: {name}={record[name]}, expected {value}; the model is for another version "
                "of serkit: install that one, or train it again with notebook 05_train_coattention"
            )


def _damaged(path, error):
    reason = f"{error} is missing" if isinstance(error, KeyError) else str(error).splitlines()[0][:200]
    return WeightsError(f"{show_path(path)}: damaged or unreadable ({reason}); {CURE}")
