"""One experiment: every setting that decides the numbers of a training run, declared once.

A setting has a type, a default, a range or choices, and a sentence of help. Notebooks, papermill, the
command line, grids and records all hand their values to :meth:`Experiment.of`: what is wrong gets the same
sentence everywhere.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import get_args

from serkit import recipe as recipes
from serkit.constants import (
    BATCH_SIZE,
    CORPORA,
    FUSIONS,
    LEARNING_RATE,
    MAX_EPOCHS,
    MIN_EPOCHS,
    PATIENCE,
    VIEW_SETS,
)
from serkit.errors import ParameterError
from serkit.folds import GROUPINGS, SELECTIONS

# training defaults: the paper's own, and what a narrow model learned from scratch needs on a CPU
TRAINING = {
    "paper": {
        "epochs": MAX_EPOCHS, "batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE,
        "patience": PATIENCE, "min_epochs": MIN_EPOCHS,
    },
    "demo": {"epochs": 10, "batch_size": 16, "learning_rate": 1e-3, "patience": 5, "min_epochs": 7},
}  # fmt: skip
SWITCH = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


def setting(default, text, *, choices=(), between=(), none="the profile's own", check=None):
    """Declare a setting; its type is the annotation of the field.

    Parameters
    ----------
    default
    text : str
        What it is, for ``serkit reproduce --help``.
    choices : sequence of str, optional
    between : tuple, optional
        Smallest and largest value, and their unit if they have one.
    none : str, optional
        What None means, where that is the default.
    check : callable, optional
        Raises a ``ParameterError`` on a value that is neither a choice nor in a range.
    """
    about = {"help": text, "choices": tuple(choices), "between": between, "none": none, "check": check}
    return field(default=default, metadata=about)


def _check_encoder_training(value):
    if not re.fullmatch(r"all|transformer|frozen|top_[1-9]\d?", value):
        raise ParameterError(
            f"encoder_training={shown(value)}, expected all, transformer, frozen or top_<k> such as top_4"
        )


@dataclass(frozen=True)
class TrainingSettings:
    """How a model is trained; the defaults are the published ones, None is the profile's own."""

    profile: str = setting("demo", "size of the model", choices=TRAINING)
    views: str = setting("all", "what the model sees: all views, one, or two", choices=VIEW_SETS)
    fusion: str = setting(
        "coattention", "how views become one; coattention is the published way", choices=FUSIONS
    )
    epochs: int | None = setting(None, "epochs at most", between=(1, 1000, "epochs"))
    batch_size: int | None = setting(None, "segments of one optimiser step", between=(1, 4096, "segments"))
    micro_batch: int | None = setting(
        None, "segments computed at once", between=(1, 4096, "segments"), none="the whole batch"
    )
    learning_rate: float | None = setting(None, "learning rate of AdamW", between=(1e-8, 1.0))
    encoder_learning_rate: float | None = setting(
        None, "learning rate of the speech encoder", between=(1e-8, 1.0), none="like everything else"
    )
    weight_decay: float = setting(0.01, "weight decay of AdamW; torch's default", between=(0.0, 1.0))
    warmup: float = setting(
        0.0, "share of steps in which the learning rate rises from 0", between=(0.0, 0.9, "of all steps")
    )
    schedule: str = setting(
        "constant", "of the learning rate after the warmup", choices=("constant", "linear", "cosine")
    )
    class_weights: bool = setting(False, "errors on rare classes count more: N / (4 n)")
    label_smoothing: float = setting(
        0.0, "share of the target given to all classes alike", between=(0.0, 0.9, "of the target")
    )
    max_grad_norm: float | None = setting(
        None, "longer gradients are shortened to this length", between=(1e-6, 1e6), none="never"
    )
    patience: int | None = setting(None, "epochs without a better one", between=(1, 1000, "epochs"))
    min_epochs: int | None = setting(None, "never stop before this epoch", between=(1, 1000, "epochs"))
    precision: str = setting(
        "auto", "auto is what the device is good at", choices=("auto", "float32", "bf16", "fp16")
    )
    speech_encoder: str | None = setting(
        None, "hub id or local folder of wav2vec 2.0 or another encoder, or random"
    )
    cnn_weights: str | None = setting(
        None, "where AlexNet's weights come from", choices=("imagenet", "random")
    )
    encoder_training: str = setting(
        "all", "what of the encoder learns: all, transformer, top_<k>, frozen", check=_check_encoder_training
    )
    encoder_layers: str = setting(
        "last", "the encoder's last layer, or a learned weighted sum of all", choices=("last", "weighted")
    )
    encoder_cache: bool = setting(True, "a frozen encoder's output is computed once and read from disk")
    gradient_checkpointing: bool = setting(False, "a third more time for a fraction of the memory")
    compile: bool = setting(False, "torch.compile")
    keep_epochs: bool = setting(True, "keep the predictions of every epoch, to compare rules of choosing one")

    def __post_init__(self):
        values = {field.name: _converted(field, getattr(self, field.name)) for field in fields(self)}
        usual = TRAINING[values["profile"]]
        vars(self).update(values | {name: usual[name] for name in usual if values[name] is None})
        if self.fusion != "coattention" and self.views != "all":
            raise ParameterError(
                f"fusion={self.fusion!r} with views={self.views!r}, expected views='all': fusions are compared on all "
                "three views; leave out fusion or views"
            )

    @classmethod
    def of(cls, settings):
        """The experiment of these settings, whoever wrote them: a notebook, a command line, a file.

        Parameters
        ----------
        settings : mapping of str to object
            Text stands for what it says: ``"16"`` is 16, ``"no"`` is False, ``"none"`` is None.

        Raises
        ------
        ParameterError
            On a setting that doesn't exist, is of another type or out of range.

        Examples
        --------
        >>> Experiment.of({"epochs": "3", "compile": "no"}) == Experiment(epochs=3)
        True
        """
        check_names(settings, [field.name for field in fields(cls)])
        return cls(**settings)


@dataclass(frozen=True)
class Experiment(TrainingSettings):
    """Everything that decides the numbers of one training run."""

    corpus: str = setting("demo", "which corpus", choices=CORPORA)
    recipe: str = setting(
        "corrected", "features: published, corrected, published+D2, ...", check=recipes.named
    )
    selection: str = setting("clean", "who chooses the checkpoint; published is a leak", choices=SELECTIONS)
    by: str = setting("session", "what a fold tests and leaves out of training", choices=GROUPINGS)
    fold: str = setting("1", "the session or speaker that is tested")
    seed: int = setting(111, "of every random draw", between=(0, 2**31))

    @property
    def reads_states(self):
        """Whether a frozen encoder's output is computed once and read from disk from then on."""
        return self.encoder_training == "frozen" and self.encoder_cache and "speech" in VIEW_SETS[self.views]

    @property
    def variant(self):
        """Short name of what is compared with what: recipe, selection, grouping, profile, encoder, views."""
        named = [self.recipe, self.selection, self.by, self.profile]
        if self.speech_encoder:
            named.append(re.sub(r"\W+", "-", Path(self.speech_encoder).name))
        named += [self.encoder_training] * (self.encoder_training != "all")
        named += [self.encoder_layers] * (self.encoder_layers != "last")
        named += [self.views] * (self.views != "all") + [self.fusion] * (self.fusion != "coattention")
        return "_".join(named)

    @property
    def key(self):
        """Hash of all parameters: equal experiments give equal numbers on the same machine."""
        return key_of(asdict(self))

    def folder(self, run, home=None):
        """Where this experiment's results lie."""
        return (
            (home or project_home()) / "runs" / run / self.variant / f"fold={self.fold}" / f"seed={self.seed}"
        )


SETTINGS = {field.name: field for field in fields(Experiment)}  # by name, as they were declared


def convert(name, value):
    """A value of a setting in its declared type, checked.

    Raises
    ------
    ParameterError
        Naming the setting, the value and what was expected.

    Examples
    --------
    >>> convert("epochs", "16.0"), convert("learning_rate", "1e-4"), convert("compile", "no")
    (16, 0.0001, False)
    >>> convert("epochs", 2.5)
    Traceback (most recent call last):
    serkit.errors.ParameterError: epochs=2.5, expected a whole number from 1 to 1000 epochs, or none: the profile's own
    """
    check_names([name], SETTINGS)
    return _converted(SETTINGS[name], value)


def check_names(names, known):
    """Refuse a name that doesn't exist, with the one that may have been meant."""
    for name in names:
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            expected = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
            raise ParameterError(f"{shown(name)} is not a setting, {expected}")


def expectation(field):
    """What a setting may be, in words; ``field`` as in ``SETTINGS``."""
    about, kind = field.metadata, _kind(field)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
    if about["choices"]:
        words = f"one of {', '.join(about['choices'])}"
    elif about["between"]:
        low, high, *unit = about["between"]
        words = " ".join([words, f"from {low} to {high}", *unit])
    return words if field.default is not None else f"{words}, or none: {about['none']}"


def shown(value):
    """A value as a message quotes it: numbers bare, texts in quotes, at most 60 characters."""
    try:
        float(value)
        text = str(value)
    except (TypeError, ValueError, OverflowError):
        text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _kind(field):
    return (get_args(field.type) or (field.type,))[0]


def _converted(field, given):
    choices, between = field.metadata["choices"], field.metadata["between"]
    if field.default is None and str(given).strip().lower() in ("", "none"):
        return None
    try:
        value = _PARSERS[_kind(field)](given)
        if (between and not between[0] <= value <= between[1]) or (choices and value not in choices):
            raise ValueError
    except (TypeError, ValueError, KeyError, OverflowError):
        near = get_close_matches(str(given), choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ParameterError(f"{field.name}={shown(given)}, expected {expectation(field)}{hint}") from None
    if field.metadata["check"]:
        field.metadata["check"](value)
    return value


def _whole(value):
    number = float(value) if isinstance(value, str) else value
    if isinstance(value, bool) or int(number) != number:
        raise ValueError
    return int(number)


def _number(value):
    if isinstance(value, bool):
        raise ValueError
    return float(value)


def _text(value):
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError
    return str(value)


_PARSERS = {bool: lambda value: SWITCH[str(value).strip().lower()], int: _whole, float: _number, str: _text}


def key_of(parameters):
    """Hash of parameters as JSON knows them, whatever their order; of a record as well as of an Experiment.

    Examples
    --------
    >>> key_of({"fold": "1", "seed": 111}) == key_of({"seed": 111, "fold": "1"})
    True
    """
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:12]


def project_home():
    """The folder that holds ``notebooks/``, ``data/`` and ``runs/``, from anywhere inside it."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks" / "01_prepare_corpus.ipynb").is_file():
            return folder
    return here


def show_path(path):
    """A path as a reader wants it: relative to the project where it lies inside."""
    try:
        return Path(path).resolve().relative_to(project_home().resolve())
    except ValueError:
        return Path(path)
