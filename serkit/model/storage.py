"""A trained model as a folder, its card, and the checkpoints of the published code.

``config.json`` and ``model.safetensors`` are the network, ``features.json`` says how sound becomes
its input, ``README.md`` is the model card (its text: ``model_card.md``). All are text or plain
tensors: opening a folder runs no code from it. ``export_onnx`` makes one file of them that needs no torch.
"""

import json
import math
import os
import warnings
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from safetensors import safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from serkit.constants import LABELS, SAMPLE_RATE, SEGMENT_SAMPLES, VIEW_SETS
from serkit.errors import ParameterError, WeightsError, reason_of, reported_as, shown
from serkit.experiment import ACROSS, SETTINGS, convert, key_of, show_path
from serkit.features.store import FEATURE_VERSION
from serkit.features.views import SpectrogramScaler, segment_features, spectrogram_image
from serkit.files import read_toml, replacing
from serkit.metrics import chance_ua
from serkit.model.coattention import PAPER, CoAttentionModel, ModelConfig, read_speech_encoder
from serkit.model.encoders import RANDOM, fingerprint
from serkit.model.speech_encoders import check_sizes, check_structure
from serkit.recipe import Recipe, named
from serkit.runs import leak_notice, sha256_of, write_json

CURE = "train the model again with notebook 05_train_coattention, or copy the whole folder again"
CONTRACT = {  # what this version of serkit takes for granted about any model
    "sample_rate": SAMPLE_RATE,  # Hz
    "segment_samples": SEGMENT_SAMPLES,
    "feature_version": FEATURE_VERSION,
}

ONNX_ERROR = 1e-4  # of a logit, at most: that of another order of sums, and far below what changes an answer

CARD = Path(__file__).with_name("model_card.md")
CORPORA = read_toml(__file__, "corpora.toml")  # for the card
OWN_CORPUS = {"speech": "a corpus of the user's own", "licence": {"license": "unknown"}}
GENDERS = {"F": "female voices", "M": "male voices"}

# part of the published model: ours
PUBLISHED_NAMES = read_toml(__file__, "published.toml")
PUBLISHED_UNUSED = "alexnet_model.classifier."  # computed by the published code, never part of the logits


@dataclass(frozen=True, eq=False)
class ModelFolder:
    """An opened model folder."""

    folder: Path
    model: CoAttentionModel  # in evaluation mode, on the CPU
    recipe: Recipe
    scaler: SpectrogramScaler
    experiment: dict  # parameters of the training run: corpus, fold, seed, ...
    # temperature and quantiles of confidence, as `serkit.metrics.certainty` gives them; or empty
    certainty: dict


def save_model(model, folder, *, whole=False):
    """Write ``config.json`` and ``model.safetensors``.

    A frozen pretrained encoder is the same in every fold: the config names it and its SHA-256, and `load_model`
    reads it where it came from. ``whole=True`` writes its weights as well, for a model to be handed on.
    """
    folder = Path(folder)
    write_json(folder / "config.json", asdict(model.config))
    state = model.state_dict() if whole else model.saved_state()
    weights = {name: value.contiguous() for name, value in state.items()}
    with replacing(folder / "model.safetensors") as partial:
        partial.write_bytes(to_bytes(weights))
    if (path := folder / "features.json").is_file():
        _seal(folder, json.loads(path.read_text(encoding="utf-8")))


def load_model(folder):
    """Read a model that ``save_model`` wrote; in evaluation mode.

    Raises
    ------
    WeightsError
        If a file is missing or damaged, or the two don't fit together; said of the file at fault. If the
        encoder that they name is gone, or is another one by now.
    """
    with _reading(folder, "config.json") as path:
        config = _checked_config(json.loads(path.read_text(encoding="utf-8")))
    with _reading(folder, "model.safetensors") as path:
        _check_shapes(path, config)
        model, weights = CoAttentionModel(config), load_file(path)
        model.load_saved_state(weights)
    if model.config.names_encoder and not any(name.startswith("speech_encoder.") for name in weights):
        _read_named_encoder(model, Path(folder) / "config.json")
    return model.eval()


def _checked_config(settings):
    """The config of a file that anybody may have written: known names, each of its type, and no size without bounds."""
    settings = {"labels": list(LABELS)} | settings  # older ones don't say
    for name, usual in vars(PAPER).items():
        value, kinds = settings[name], {tuple: list, float: (int, float)}.get(type(usual), type(usual))
        if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(usual, bool):
            raise ValueError(f"{name}={shown(value)}, expected {type(usual).__name__}")
        if name in SETTINGS and name != "cnn_weights":
            convert(name, value)
    check_structure(settings["speech"])
    check_sizes(settings)
    labels = settings["labels"]
    if not all(isinstance(label, str) for label in labels) or not 2 <= len(set(labels)) == len(labels) <= 100:
        raise ValueError(f"labels={shown(labels)}, expected 2 to 100 different names")
    return ModelConfig(**settings | {name: tuple(settings[name]) for name in ("cnn_channels", "labels")})


def _check_shapes(path, config):
    """Compare a weights file's header with the network that a config describes, before that is built."""
    with torch.device("meta"):
        expected = {name: list(value.shape) for name, value in CoAttentionModel(config).state_dict().items()}
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118, it is no dictionary
            shape = file.get_slice(name).get_shape()
            if shape != expected.get(name, shape):
                raise ValueError(f"size mismatch for {name}: {shape} here, {expected[name]} by config.json")


def _read_named_encoder(model, path):
    """The frozen encoder from where it came from, if it is still the one that was trained on."""
    source, sha256 = model.config.speech_encoder, model.config.sources["speech_encoder"]["sha256"]
    about = f"{show_path(path)}: the model was trained on the speech encoder {source!r}, which"
    cure = 'put that one back, or write the folder where it lies now into this file as "speech_encoder"'
    try:
        read_speech_encoder(model)
        is_same = fingerprint(model.speech_encoder) == sha256
    except RuntimeError:  # of another shape
        is_same = False
    except WeightsError as error:
        raise WeightsError(f"{about} can't be read ({reason_of(error.__cause__)}); {cure}") from error
    if not is_same:
        raise WeightsError(f"{about} is another one by now, expected SHA-256 {sha256[:12]}...; {cure}")


def describe_model(folder, *, scaler, experiment, metrics, certainty=None):
    """Add ``features.json`` and the model card to a folder that holds a saved model.

    Parameters
    ----------
    folder : path
    scaler : SpectrogramScaler
        Fitted on its training segments.
    experiment : Experiment
        What it was trained on, and how.
    metrics : dict
        Scores of its test set, as `serkit.metrics.pooled_and_fold_mean` gives them.
    certainty : dict, optional
        How sure it may be, as `serkit.metrics.certainty` gives it.
    """
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    features = CONTRACT | {
        "labels": config.get("labels", LABELS),
        "recipe": asdict(ModelConfig(**config).hears(named(experiment.recipe))),
        "scaler": {"minimum": scaler.minimum.tolist(), "maximum": scaler.maximum.tolist()},  # dB
        "experiment": asdict(experiment),
        "certainty": certainty or {},
    }
    _seal(folder, features)
    card = model_card(config, experiment=experiment, metrics=metrics)
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
    folder = Path(os.path.expanduser(folder))
    if not folder.is_dir():
        cure = "train a model with notebook 05_train_coattention, or give the folder that holds config.json"
        raise WeightsError(f"model folder {show_path(folder)}: no such folder; {cure}")
    model = load_model(folder)
    with _reading(folder, "features.json") as path:
        record = json.loads(path.read_text(encoding="utf-8"))
        for name, value in (CONTRACT | {"labels": list(model.config.labels)}).items():
            if record[name] != value:
                about = f"{show_path(path)}: {name}={shown(record[name])}, expected {shown(value)}"
                cure = "install that one, or train it again with notebook 05_train_coattention"
                raise WeightsError(f"{about}; the model is for another version of serkit: {cure}")
        limits = {name: np.array(record["scaler"][name], np.float32) for name in ("minimum", "maximum")}
        recipe, experiment = Recipe(**record["recipe"]), dict(record["experiment"])
        certainty = dict(record.get("certainty", {}))
        if certainty and not (0.01 < certainty["temperature"] < 100 and len(certainty["confidence"]) == 21):
            raise ValueError(f"certainty={shown(certainty)}")
        if record.pop("key", None) not in (None, key_of(record)):  # None: of an older version
            raise ValueError("edited or damaged since training")
        digests = dict(record.get("digests", {}))
    for name, digest in digests.items():
        with _reading(folder, name) as path:
            if digest != _digest(path):
                raise ValueError("edited or damaged since training")
    return ModelFolder(folder, model, recipe, SpectrogramScaler(**limits), experiment, certainty)


def _seal(folder, features):
    """Write ``features.json`` with the digests of the files beside it, and of itself."""
    digests = {name: _digest(folder / name) for name in ("config.json", "model.safetensors")}
    features = {name: value for name, value in features.items() if name != "key"} | {"digests": digests}
    write_json(folder / "features.json", features | {"key": key_of(features)})


def _digest(path):
    """Of a file that decides an answer. Where a frozen encoder lies may be mended by hand, and is left out."""
    if path.suffix == ".json":
        return key_of(json.loads(path.read_text(encoding="utf-8")) | {"speech_encoder": ""})
    return sha256_of(path)


@contextmanager
def _reading(folder, name):
    """The path of a file of a model folder, and one sentence about whatever is wrong with it."""
    path = Path(folder) / name
    if not os.path.lexists(path):
        raise WeightsError(f"model folder {show_path(path.parent)}: {name} is missing; {CURE}")
    with reported_as(WeightsError, f"{show_path(path)}: damaged, or not of the files beside it", CURE):
        yield path


def export_onnx(folder, target):
    """Write a model as one ONNX file for programs that have neither serkit nor torch; compare the two on noise.

    The inputs are those of ``CoAttentionModel.forward``, for any number of segments; without ``num_samples`` where
    the recipe gives padding a weight. ``features.json`` is in the file's metadata under its name.

    Parameters
    ----------
    folder : path
        Model folder.
    target : path
        Outside of that folder, which holds what training left and no more; ends in ``.onnx``.

    Returns
    -------
    float
        Largest difference of a logit.

    Raises
    ------
    ParameterError
        If there is no such place, or a package is missing.
    WeightsError
        As `open_model_folder`; if the model is too large for one file, torch can't convert it, or the two differ by more than 1e-4.
    """
    folder, target = (Path(os.path.expanduser(path)).resolve() for path in (folder, target))
    if target.suffix != ".onnx" or target.is_dir() or not target.parent.is_dir() or target.parent == folder:
        wanted = "expected a name that ends in .onnx, in a folder that exists and isn't the model's"
        raise ParameterError(f"out={show_path(target)}: {wanted}; choose another")
    try:
        import onnx  # noqa: F401, torch needs these two
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ParameterError(f"{error.name} is not installed; pip install 'serkit[onnx]'") from error
    opened = open_model_folder(folder)
    model = opened.model.requires_grad_(False)
    if sum(value.nbytes for value in model.state_dict().values()) >= 2**31:
        raise WeightsError(f"{show_path(folder)}: over 2 GB is too large for ONNX; take a smaller encoder")
    noise = np.random.default_rng(0).normal(0, 0.1, 5 * SAMPLE_RATE).astype(np.float32)
    views = segment_features(noise, opened.recipe)  # two segments
    names = ["waveform" if view == "speech" else view for view in opened.model.views]
    inputs = {name: torch.from_numpy(getattr(views, name)) for name in names}
    if "spectrogram" in inputs:
        inputs["spectrogram"] = spectrogram_image(inputs["spectrogram"], opened.scaler)
    if "waveform" in inputs and opened.recipe.mask_padding:
        inputs["num_samples"] = torch.tensor([SEGMENT_SAMPLES, SAMPLE_RATE])
    expected, batch = model(**inputs), {0: torch.export.Dim("batch")}
    one = {name: value[1:].numpy() for name, value in inputs.items()}  # two were traced, any number must do
    about = f"{show_path(folder)}: can't be written as ONNX"
    features = (folder / "features.json").read_text(encoding="utf-8")
    cure = "use the folder itself"
    with replacing(target) as partial, reported_as(WeightsError, about, cure):
        with warnings.catch_warnings(action="ignore"):
            program = torch.onnx.export(
                model, (), kwargs=inputs, dynamic_shapes=dict.fromkeys(inputs, batch),
                output_names=list(expected), verbose=False,
            )  # fmt: skip
        program.model.metadata_props["features.json"] = features
        program.save(partial)
        session = onnxruntime.InferenceSession(partial, providers=["CPUExecutionProvider"])
        [logits] = session.run(["logits"], one)
        if not (error := abs(logits - expected.logits.numpy()[1:]).max()) <= ONNX_ERROR:
            raise WeightsError(f"{about}: logits are {error:.0e} off, expected {ONNX_ERROR}; {cure}")
    return float(error)


def model_card(config, *, experiment, metrics):
    """Text of a model card with Hugging Face's header.

    Parameters
    ----------
    config : dict
        Fields of a ModelConfig, as ``config.json`` has them.
    experiment : Experiment
    metrics : dict
        ``wa_pooled`` and ``ua_pooled`` (fractions) and ``n_utterances`` of the test set; optionally ``by_gender``,
        rows of `serkit.metrics.score_table`.

    Returns
    -------
    str
        Markdown.
    """
    name = f"serkit-{experiment.corpus}-{experiment.variant}-fold{experiment.fold}-seed{experiment.seed}"
    percent = {key: 100 * metrics[f"{key}_pooled"] for key in ("wa", "ua")}
    train, _, test = experiment.corpus.partition(ACROSS)
    trained, test = train.split("+"), test or train
    tested = ("audio-classification", test, f"{test}, {experiment.by} {experiment.fold}")
    encoder, views = config["speech_encoder"], VIEW_SETS[experiment.views]
    absent = "speech" not in views or encoder == RANDOM or Path(encoder).is_dir()  # from the hub
    genders = [row | {"heard": GENDERS[row["gender"]]} for row in metrics.get("by_gender", ())]
    recalls = {"UA (%)": percent["ua"]} | {f"UA, {row['heard']} (%)": 100 * row["ua"] for row in genders}
    scores = [("accuracy", "WA (%)", percent["wa"], None)]
    scores += [("recall", about, value, {"average": "macro"}) for about, value in recalls.items()]
    results = [
        EvalResult(*tested, kind, round(value, 2), metric_name=about, metric_args=given)
        for kind, about, value, given in scores
        if math.isfinite(value)
    ]
    corpora = [CORPORA.get(name, OWN_CORPUS) for name in trained]
    licence = corpora[0]["licence"]
    if any(corpus["licence"] != licence for corpus in corpora):
        licence = {"license": "other", "license_name": f"those-of-{'-and-'.join(trained)}"}
    header = ModelCardData(
        language=sorted({corpus["language"] for corpus in corpora if corpus != OWN_CORPUS}) or None, library_name="serkit",
        **licence, datasets=trained, pipeline_tag=tested[0], tags=["speech-emotion-recognition", "co-attention"],
        base_model=None if absent else encoder, model_name=name, metrics=["accuracy", "recall"], eval_results=results,
    )  # fmt: skip
    card = ModelCard.from_template(
        header, CARD, name=name, labels=config["labels"], chance=chance_ua(config["labels"]), percent=percent, views=views,
        config=config, recipe=named(experiment.recipe), experiment=experiment, metrics=metrics, corpora=corpora, genders=genders,
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
    cure = "expected a state_dict, names with tensors"
    with reported_as(WeightsError, f"checkpoint {path}: can't be read as tensors", cure):
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not all(map(torch.is_tensor, state.values())):
            raise ValueError("it holds something else too")
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
        part = name.split(".")[0]
        if not name.startswith(PUBLISHED_UNUSED):
            ours[PUBLISHED_NAMES.get(part, part) + name.removeprefix(part)] = value
    speech = PAPER.speech | {"feat_proj_dropout": 0.1}  # as in the authors' version of transformers
    model = CoAttentionModel(replace(PAPER, speech=speech))
    try:
        model.load_state_dict(ours)
    except RuntimeError as error:  # torch lists what is missing, unknown, or of another shape
        faults = "; ".join(line.strip() for line in str(error).splitlines()[1:])
        raise WeightsError(f"checkpoint does not fit the published model: {faults[:1000]}") from error
    return model.eval()
