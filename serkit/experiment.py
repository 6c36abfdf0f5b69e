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
from serkit.constants import CORPORA, FUSIONS, VIEW_SETS
from serkit.errors import ParameterError, RunError, meant, shown
from serkit.files import read_toml
from serkit.folds import GROUPINGS, SELECTIONS

TRAINING = read_toml(__file__, "profiles.toml")  # what a setting is that isn't given, by profile
HEAD_LEARNING_RATE = 1e-3  # what learns on a frozen encoder begins from random weights, in either profile
SEGMENTS = (1, 4096, "segments")
RATES = (1e-8, 1.0)
ACROSS = "-to-"  # between the corpora that are trained on and the one that is tested
# texts that are no choice of a few: a regular expression, and what it allows in words
ENCODER_TRAINING = r"all|transformer|frozen|top_[1-9]\d?", "all, transformer, frozen or top_<k> such as top_4"
ENCODER_LAYERS = (
    r"last|weighted|\d{1,2}",
    "last, weighted, or the number of a layer such as 9 (0: the input of the first)",
)
CORPUS = (
    r"\w[\w+-]{0,63}",
    f"one of {', '.join(CORPORA)}, or at most 64 letters (a to z), digits, - and _ that name a table",
)
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")  # what may stand for a switch


def setting(default, *, choices=(), between=(), like=(), none="the profile's own"):
    """Declare a setting; its type is the annotation of the field, and ``settings.toml`` says what it is.

    Parameters
    ----------
    default
    choices : sequence of str, optional
    between : tuple, optional
        Smallest and largest value, and their unit if they have one.
    like : pair of str, optional
        Regular expression of a text, and what it allows in words.
    none : str, optional
        What None means, where that is the default.
    """
    about = {"choices": tuple(choices), "between": between, "like": like, "none": none}
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class Experiment:
    """Everything that decides the numbers of one training run; None is the profile's own value."""

    # how a model is trained; the defaults are the published ones
    profile: str = setting("demo", choices=TRAINING)
    views: str = setting("all", choices=VIEW_SETS)
    fusion: str = setting("coattention", choices=FUSIONS)
    epochs: int | None = setting(None, between=(1, 1000, "epochs"))
    batch_size: int | None = setting(None, between=SEGMENTS)
    micro_batch: int | None = setting(None, between=SEGMENTS, none="the whole batch")
    learning_rate: float | None = setting(None, between=RATES)
    encoder_learning_rate: float | None = setting(None, between=RATES, none="like everything else")
    weight_decay: float = setting(0.01, between=(0.0, 1.0))  # torch's default
    warmup: float | None = setting(None, between=(0.0, 0.9, "of all steps"))
    schedule: str | None = setting(None, choices=("constant", "linear", "cosine"))
    class_weights: bool = setting(False)
    label_smoothing: float = setting(0.0, between=(0.0, 0.9, "of the target"))
    max_grad_norm: float | None = setting(None, between=(1e-6, 1e6), none="never")
    patience: int | None = setting(None, between=(1, 1000, "epochs"))
    min_epochs: int | None = setting(None, between=(1, 1000, "epochs"))
    precision: str = setting("auto", choices=("auto", "float32", "bf16", "fp16"))
    speech_encoder: str | None = setting(None)
    cnn_weights: str | None = setting(None, choices=("imagenet", "random"))
    encoder_training: str = setting("all", like=ENCODER_TRAINING)
    encoder_layers: str = setting("last", like=ENCODER_LAYERS)
    encoder_cache: bool = setting(True)
    gradient_checkpointing: bool = setting(False)
    compile: bool = setting(False)
    checkpoint_rule: str = setting("wa+ua", choices=("wa+ua", "loss"))
    keep_epochs: bool = setting(True)
    # on what, and who is tested
    corpus: str = setting("demo", like=CORPUS)
    recipe: str = setting("corrected", like=recipes.NAMES)
    selection: str = setting("clean", choices=SELECTIONS)
    by: str = setting("session", choices=GROUPINGS)
    unseen_text: bool = setting(False)
    fold: str = setting("1")
    seed: int = setting(111, between=(0, 2**31))

    def __post_init__(self):
        values = {name: convert(name, given) for name, given in vars(self).items()}
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
            rule = "views='all': fusions are compared on all three views; leave out fusion or views"
            raise ParameterError(f"fusion={self.fusion!r} with views={self.views!r}, expected {rule}")

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
        changed = (getattr(self, name) for name in NAMED if getattr(self, name) != SETTINGS[name].default)
        named += [f"layer{value}" if value.isdigit() else value for value in changed]
        return "_".join(named + ["unseen"] * self.unseen_text)

    @property
    def key(self):
        """Hash of all parameters: equal experiments give equal numbers on the same machine."""
        return key_of(asdict(self))

    def folder(self, run, home=None):
        """Where this experiment's results lie."""
        of_variant = (home or project_home()) / "runs" / run / self.variant
        return of_variant / f"fold={self.fold}" / f"seed={self.seed}"


# settings that a variant is called after where they are not the usual ones
NAMED = ("encoder_training", "encoder_layers", "views", "fusion", "checkpoint_rule")
SETTINGS = {field.name: field for field in fields(Experiment)}  # by name, as they were declared
HELP = read_toml(__file__, "settings.toml")  # what each is


WORDS = {
    bool: "true or false", int: "a whole number", float: "a number", str: "text",
    dict: 'settings by name, such as {"micro_batch": 8}',
}  # fmt: skip
LONGEST = 4000  # characters of a text; a path may be as long
NOT_OF_ITS_TYPE = (ValueError, OverflowError, RecursionError)


def convert(name, given):
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
    field = SETTINGS[name]
    choices, (low, high, *_) = field.metadata["choices"], field.metadata["between"] or (None, None)
    like = field.metadata["like"]
    try:
        if field.default is None and str(given).strip().lower() in ("", "none"):
            return None
        value = _parsed(_kind(field), given)
        beyond = low is not None and not low <= value <= high
        unlike = like and not re.fullmatch(like[0], value, re.ASCII)
        if beyond or unlike or (choices and value not in choices):
            raise ValueError
    except NOT_OF_ITS_TYPE:
        hint = meant(given, choices)
        raise ParameterError(f"{name}={shown(given)}, expected {expectation(name)}{hint}") from None
    return value


def check_names(names, known):
    """Refuse a name that doesn't exist, with the one that may have been meant."""
    for name in names:
        if name not in known:
            hint = meant(name, known, ", ") or f", expected one of {', '.join(known)}"
            raise ParameterError(f"{shown(name)} is not a setting{hint}")


def expectation(name):
    """What a setting may be, in words."""
    field = SETTINGS[name]
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
        cure = "start it there, or give papermill --cwd FOLDER"
        raise RunError(f"{Path.cwd()} is not inside the project folder: no {MARKER} here or above; {cure}")


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
