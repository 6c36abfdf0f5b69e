"""One experiment: every setting that decides the numbers of a training run, declared once.

A setting has a type, a default, a range or choices, and a sentence of help. Notebooks, papermill, the
command line, grids and records all hand their values to :meth:`Experiment.of`: what is wrong gets the same
sentence everywhere.
"""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, field, fields
from numbers import Real
from pathlib import Path
from typing import get_args

from serkit import recipe as recipes
from serkit.constants import CORPORA, FUSIONS, PUBLISHED_TRAINING, VIEW_SETS
from serkit.errors import ParameterError, RunError, meant, shown
from serkit.folds import GROUPINGS, SELECTIONS

# training defaults: the paper's own, and what a narrow model learned from scratch needs on a CPU
TRAINING = {
    "paper": PUBLISHED_TRAINING,
    "demo": {"epochs": 10, "batch_size": 8, "learning_rate": 1e-3, "patience": 5, "min_epochs": 7},
}
HEAD_LEARNING_RATE = 1e-3  # what learns on a frozen encoder begins from random weights, in either profile
SEGMENTS = (1, 4096, "segments")
RATES = (1e-8, 1.0)
ACROSS = "-to-"  # between the corpora that are trained on and the one that is tested
SCHEDULES = ("constant", "linear", "cosine")
PRECISIONS = ("auto", "float32", "bf16", "fp16")
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")  # what may stand for a switch


def setting(default, text, *, choices=(), between=(), like=(), none="the profile's own"):
    """Declare a setting; its type is the annotation of the field.

    Parameters
    ----------
    default
    text : str
        What it is, for ``serkit reproduce --help``.
    choices : sequence of str, optional
    between : tuple, optional
        Smallest and largest value, and their unit if they have one.
    like : pair of str, optional
        Regular expression of a text, and what it allows in words.
    none : str, optional
        What None means, where that is the default.
    """
    about = {"help": text, "choices": tuple(choices), "between": between, "like": like, "none": none}
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class Experiment:
    """Everything that decides the numbers of one training run; None is the profile's own value."""

    # how a model is trained; the defaults are the published ones
    profile: str = setting("demo", "size of the model", choices=TRAINING)
    views: str = setting("all", "what the model sees: all views, one, or two", choices=VIEW_SETS)
    fusion: str = setting("coattention", "how views become one; the first is published", choices=FUSIONS)
    epochs: int | None = setting(None, "epochs at most", between=(1, 1000, "epochs"))
    batch_size: int | None = setting(None, "segments of one optimiser step", between=SEGMENTS)
    micro_batch: int | None = setting(
        None, "segments per forward pass", between=SEGMENTS, none="the whole batch"
    )
    learning_rate: float | None = setting(
        None, f"learning rate of AdamW; {HEAD_LEARNING_RATE} on a frozen encoder if not given", between=RATES
    )
    encoder_learning_rate: float | None = setting(
        None, "learning rate of the speech encoder", between=RATES, none="like everything else"
    )
    weight_decay: float = setting(0.01, "weight decay of AdamW; torch's default", between=(0.0, 1.0))
    warmup: float = setting(0.0, "share of steps in which the rate rises", between=(0.0, 0.9, "of all steps"))
    schedule: str = setting("constant", "of the learning rate after the warmup", choices=SCHEDULES)
    class_weights: bool = setting(False, "errors on rare classes count more: N / (K n)")
    label_smoothing: float = setting(
        0.0, "probability spread evenly over all classes", between=(0.0, 0.9, "of the target")
    )
    max_grad_norm: float | None = setting(
        None, "longer gradients are cut to this length", between=(1e-6, 1e6), none="never"
    )
    patience: int | None = setting(
        None, "stop after this many epochs without improvement", between=(1, 1000, "epochs")
    )
    min_epochs: int | None = setting(None, "never stop before this epoch", between=(1, 1000, "epochs"))
    precision: str = setting("auto", "auto is what the device is good at", choices=PRECISIONS)
    speech_encoder: str | None = setting(None, "hub id or folder of a speech encoder, or random")
    cnn_weights: str | None = setting(None, "of AlexNet, to begin with", choices=("imagenet", "random"))
    encoder_training: str = setting(
        "all", "what of the encoder learns",
        like=(r"all|transformer|frozen|top_[1-9]\d?", "all, transformer, frozen or top_<k> such as top_4"),
    )  # fmt: skip
    encoder_layers: str = setting(
        "last", "one, or a learned sum of all",
        like=(r"last|weighted|\d{1,2}", "last, weighted, or the number of a layer such as 9 (0: the input of the first)"),
    )  # fmt: skip
    encoder_cache: bool = setting(True, "a frozen encoder's output is computed once and read from disk")
    gradient_checkpointing: bool = setting(False, "a third more time for a fraction of the memory")
    compile: bool = setting(False, "torch.compile")
    checkpoint_rule: str = setting(
        "wa+ua", "which epoch is the best: of highest WA + UA, or of lowest loss", choices=("wa+ua", "loss")
    )
    keep_epochs: bool = setting(True, "keep the predictions of every epoch, to compare rules of choosing one")
    # on what, and who is tested
    corpus: str = setting(
        "demo", "which corpus; A-to-B: trained on A, tested on B",
        like=(r"\w[\w+-]{0,63}", f"one of {', '.join(CORPORA)}, or at most 64 letters (a to z), digits, - and _ that name a table"),
    )  # fmt: skip
    recipe: str = setting("corrected", "mistakes that are corrected", like=recipes.NAMES)
    selection: str = setting(
        "clean", "which speakers choose the checkpoint; published is a leak", choices=SELECTIONS
    )
    by: str = setting(
        "session",
        "what a fold tests and leaves out of training; split: as the corpus says",
        choices=GROUPINGS,
    )
    unseen_text: bool = setting(
        False, "no sentence that is tested is trained on; half of the shared ones are each"
    )
    fold: str = setting("1", "the session or speaker that is tested")
    seed: int = setting(111, "of every random draw", between=(0, 2**31))

    def __post_init__(self):
        values = {field.name: _converted(field, getattr(self, field.name)) for field in fields(self)}
        values["recipe"] = recipes.named(values["recipe"]).name
        if "speech" not in VIEW_SETS[values["views"]]:  # what is said of an encoder decides nothing then
            values |= {name: SETTINGS[name].default for name in SETTINGS if "encoder" in name}
        if ACROSS in values["corpus"]:
            values["by"] = "split"
        if values["by"] == "speaker" and values["corpus"] in ("ravdess", "emodb"):  # papermill makes 1 of 01
            values["fold"] = values["fold"].zfill(2)
        usual = TRAINING[values["profile"]]
        if values["encoder_training"] == "frozen":
            usual = usual | {"learning_rate": HEAD_LEARNING_RATE}
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
        check_names(settings, SETTINGS)
        return cls(**settings)

    @property
    def reads_states(self):
        """Whether a frozen encoder's output is computed once and read from disk from then on."""
        return self.encoder_training == "frozen" and self.encoder_cache

    @property
    def protocol(self):
        """Who trains, chooses and is tested, as :func:`serkit.folds.make_folds` takes it."""
        return self.by, self.selection, self.unseen_text

    @property
    def variant(self):
        """Short name of what is compared with what: recipe, selection, grouping, profile, encoder, views."""
        named = [self.recipe, self.selection, self.by, self.profile]
        if self.speech_encoder:
            named.append(re.sub(r"\W+", "-", Path(self.speech_encoder).name, flags=re.ASCII)[:64])
        named += [self.encoder_training] * (self.encoder_training != "all")
        layers = f"layer{self.encoder_layers}" if self.encoder_layers.isdigit() else self.encoder_layers
        named += [layers] * (layers != "last")
        named += [self.views] * (self.views != "all") + [self.fusion] * (self.fusion != "coattention")
        named += [self.checkpoint_rule] * (self.checkpoint_rule != "wa+ua") + ["unseen"] * self.unseen_text
        return "_".join(named)

    @property
    def key(self):
        """Hash of all parameters: equal experiments give equal numbers on the same machine."""
        return key_of(asdict(self))

    def folder(self, run, home=None):
        """Where this experiment's results lie."""
        of_variant = (home or project_home()) / "runs" / run / self.variant
        return of_variant / f"fold={self.fold}" / f"seed={self.seed}"


SETTINGS = {field.name: field for field in fields(Experiment)}  # by name, as they were declared


WORDS = {
    bool: "true or false", int: "a whole number", float: "a number", str: "text",
    dict: 'settings by name, such as {"micro_batch": 8}',
}  # fmt: skip
LONGEST = 4000  # characters of a text; a path may be as long
NOT_OF_ITS_TYPE = (ValueError, OverflowError, RecursionError)


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
            hint = meant(name, known, ", ") or f", expected one of {', '.join(known)}"
            raise ParameterError(f"{shown(name)} is not a setting{hint}")


def expectation(field):
    """What a setting may be, in words; ``field`` as in ``SETTINGS``."""
    about, kind = field.metadata, _kind(field)
    words = about["like"][1] if about["like"] else WORDS[kind]
    if about["choices"]:
        words = f"one of {', '.join(about['choices'])}"
    elif about["between"]:
        low, high, *unit = about["between"]
        words = " ".join([words, f"from {low} to {high}", *unit])
    return words if field.default is not None else f"{words}, or none: {about['none']}"


def _kind(field):
    return (get_args(field.type) or (field.type,))[0]


def _converted(field, given):
    about = field.metadata
    choices, (low, high, *_) = about["choices"], about["between"] or (None, None)
    if field.default is None and (
        given is None or (isinstance(given, str) and given.strip().lower() in ("", "none"))
    ):
        return None
    try:
        value = _parsed(_kind(field), given)
        if (
            (low is not None and not low <= value <= high)
            or (choices and value not in choices)
            or (about["like"] and not re.fullmatch(about["like"][0], value, re.ASCII))
        ):
            raise ValueError
    except NOT_OF_ITS_TYPE:
        hint = meant(given, choices)
        raise ParameterError(f"{field.name}={shown(given)}, expected {expectation(field)}{hint}") from None
    return value


def _parsed(kind, given):
    """A value in its type; a ValueError, OverflowError or RecursionError if it can't stand for one."""
    if kind is dict:
        value = json.loads(given) if isinstance(given, str) else given
        value = {} if value is None else value
        good = isinstance(value, dict)
    elif not isinstance(given, str | Real) or (isinstance(given, bool) and kind is not bool):
        good = False
    elif kind is bool:
        return (*TRUE, *FALSE).index(str(given).strip().lower()) < len(TRUE)
    elif kind is str:  # papermill makes numbers of names
        value = str(given)
        good = not isinstance(given, float) and len(value) <= LONGEST and value.isprintable()
    else:
        value = kind(float(given))
        good = value == float(given)  # neither 2.5 of something nor NaN
    if not good:
        raise ValueError
    return value


def key_of(parameters):
    """Hash of parameters as JSON knows them, whatever their order; of a record as well as of an Experiment.

    Examples
    --------
    >>> key_of({"fold": "1", "seed": 111}) == key_of({"seed": 111, "fold": "1"})
    True
    """
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:12]


MARKER = "notebooks/01_prepare_corpus.ipynb"  # the project is where it lies


def project_home():
    """The folder that holds ``notebooks/``, ``data/`` and ``runs/``, from anywhere inside it; else the current one."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / MARKER).is_file()), here)


def require_project():
    """Refuse to work outside of the project: results would land where nobody looks for them.

    Raises
    ------
    RunError
        Naming the folder.
    """
    if not (project_home() / MARKER).is_file():
        raise RunError(
            f"{Path.cwd()} is not inside the project folder: no {MARKER} here or above; start it there, or give "
            "papermill --cwd FOLDER"
        )


def declared(names):
    """Bring a notebook's parameters to the types that its cell of parameters declares; papermill guesses them.

    Parameters
    ----------
    names : dict
        Of the notebook, with the annotations of that cell. Changed in place.

    Raises
    ------
    ParameterError
        Naming the first that can't be.
    """
    for name, kind in names.get("__annotations__", {}).items():
        plain = name in names and isinstance(names[name], int | float | str | list | dict | None)
        if plain and name in SETTINGS:
            names[name] = convert(name, names[name])
        elif plain and kind in WORDS:
            names[name] = of_type(kind, name, names[name])


def of_type(kind, name, value):
    """An argument in the type that it should have; a ParameterError if it can't stand for one.

    >>> of_type(bool, "partial", "no"), of_type(dict, "settings", '{"epochs": 3}')
    (False, {'epochs': 3})
    """
    try:
        return _parsed(kind, value)
    except NOT_OF_ITS_TYPE:
        raise ParameterError(f"{name}={shown(value)}, expected {WORDS[kind]}") from None


def show_path(path):
    """A path as a reader wants it: relative to the project where it lies inside."""
    home, inside = map(Path, map(os.path.realpath, (project_home(), path)))  # resolve() dislikes loops
    return inside.relative_to(home) if inside.is_relative_to(home) else Path(path)
