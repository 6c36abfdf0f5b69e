"""Settings: declared once, and the same sentence for a wrong one, whichever way it comes."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from papermill.cli import _resolve_type
from papermill.translators import PythonTranslator

from serkit import cli, corpora, recipe, runs
from serkit.errors import ParameterError, SerkitError, check_choice, check_range
from serkit.experiment import HEAD_LEARNING_RATE, HELP, SETTINGS, Experiment, convert, declared
from serkit.reproduction.plan import read_grid

TRAINING = Path(__file__).parents[1] / "notebooks" / "05_train_coattention.ipynb"
OWN = "or none: the profile's own"
WRONG = [  # setting, value, sentence
    ("epochs", 2.5, f"epochs=2.5, expected a whole number from 1 to 1000 epochs, {OWN}"),
    ("epochs", 0, f"epochs=0, expected a whole number from 1 to 1000 epochs, {OWN}"),
    ("epochs", "many", f"epochs='many', expected a whole number from 1 to 1000 epochs, {OWN}"),
    ("batch_size", 5000, f"batch_size=5000, expected a whole number from 1 to 4096 segments, {OWN}"),
    ("micro_batch", -8, "micro_batch=-8, expected a whole number from 1 to 4096 segments, or none: the whole batch"),
    ("learning_rate", 10.0, f"learning_rate=10.0, expected a number from 1e-08 to 1.0, {OWN}"),
    ("learning_rate", "fast", f"learning_rate='fast', expected a number from 1e-08 to 1.0, {OWN}"),
    ("warmup", 0.95, "warmup=0.95, expected a number from 0.0 to 0.9 of all steps, or none: the profile's own"),
    ("label_smoothing", -0.1, "label_smoothing=-0.1, expected a number from 0.0 to 0.9 of the target"),
    ("max_grad_norm", 0, "max_grad_norm=0, expected a number from 1e-06 to 1000000.0, or none: never"),
    ("schedule", "cosin", "schedule='cosin', expected one of constant, linear, cosine, or none: the profile's own; did you mean 'cosine'?"),
    ("precision", "half", "precision='half', expected one of auto, float32, bf16, fp16"),
    ("cnn_weights", "resnet", f"cnn_weights='resnet', expected one of imagenet, random, {OWN}"),
    ("encoder_layers", "all", "encoder_layers='all', expected last, weighted, or the number of a layer such as 9 (0: the input of the first)"),
    ("encoder_layers", -1, "encoder_layers=-1, expected last, weighted, or the number of a layer such as 9 (0: the input of the first)"),
    ("encoder_training", "top", "encoder_training='top', expected all, transformer, frozen or top_<k> such as top_4"),
    ("profile", "papper", "profile='papper', expected one of paper, demo; did you mean 'paper'?"),
    ("selection", "best", "selection='best', expected one of published, clean, clean9, last"),
    ("by", "actor", "by='actor', expected one of speaker, session, split"),
    ("recipe", "fixed", "recipe='fixed', expected published or corrected, then changes such as +D2 or -D3 (known: D1, D2, D3, D4, D5)"),
    ("schedule", "x" * 99, f"schedule='{'x' * 56}..., expected one of constant, linear, cosine, or none: the profile's own"),
    ("class_weights", "maybe", "class_weights='maybe', expected true or false"),
    ("compile", 2, "compile=2, expected true or false"),
]  # fmt: skip


def test_every_setting_has_a_sentence_of_help():
    assert list(HELP) == list(SETTINGS)
    assert f" {HEAD_LEARNING_RATE} on a frozen encoder" in HELP["learning_rate"]


def in_a_notebook(name, value):
    runs.start_run("trial", corpus="demo", **{name: value})


def by_papermill(name, value):
    """``papermill -p name value``, as far as the cell that starts the run; what has no parameter is in ``settings``."""
    cells = {cell.id: cell.source for cell in nbformat.read(TRAINING, as_version=4).cells}
    given = {name: _resolve_type(str(value))}
    if f"\n{name}: " not in cells["parameters"]:
        given = {"settings": given}
    scope = {"start_run": runs.start_run, "show_path": runs.show_path}
    for source in (cells["parameters"], PythonTranslator.codify(given), cells["start"]):
        exec(source, scope)


def on_the_command_line(name, value):
    option = f"--{name.replace('_', '-')}={value}"
    cli.run(["reproduce", option, "--dry-run"])


def in_a_grid(name, value):
    path = Path("trial.toml")
    path.write_text(f"[[variant]]\n{name} = {value!r}")
    read_grid(path)


CASES = [
    (way, *wrong)
    for wrong in WRONG
    for way in (in_a_notebook, by_papermill, on_the_command_line, in_a_grid)
    if way is not on_the_command_line or SETTINGS[wrong[0]].type is not bool  # switches take no value there
]


@pytest.mark.parametrize(("way", "name", "value", "sentence"), CASES)
def test_a_wrong_setting_gets_the_same_sentence_everywhere(project, way, name, value, sentence):
    with pytest.raises(ParameterError) as caught:
        way(name, value)
    assert str(caught.value).removeprefix("grid trial.toml, variant 1: ") == sentence
    assert not (project / "runs").exists()


@pytest.mark.parametrize("way", [in_a_notebook, by_papermill, in_a_grid])
def test_a_setting_that_does_not_exist(project, way):
    with pytest.raises(ParameterError, match=r"'warm_up' is not a setting, did you mean 'warmup'\?"):
        way("warm_up", 0.1)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("epochs", 16.0, 16), ("epochs", "16", 16), ("epochs", "16.0", 16), ("epochs", "none", None),
        ("epochs", "", None), ("seed", "111.0", 111), ("seed", 2**31, 2**31), ("fold", 1, "1"), ("fold", "1F", "1F"),
        ("learning_rate", "1e-4", 1e-4), ("learning_rate", 1, 1.0), ("warmup", "0", 0.0), ("class_weights", "no", False),
        ("class_weights", "false", False), ("class_weights", "0", False), ("class_weights", 0, False),
        ("class_weights", "Yes", True), ("class_weights", True, True), ("speech_encoder", "", None),
        ("speech_encoder", "random", "random"), ("cnn_weights", None, None),
    ],
)  # fmt: skip
def test_what_a_value_stands_for(name, value, expected):
    result = convert(name, value)
    assert (result, type(result)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", True), ("epochs", [3]), ("epochs", {}), ("epochs", float("nan")), ("epochs", float("inf")),
        ("seed", None), ("seed", ""), ("seed", -1), ("seed", 111.5), ("learning_rate", "nan"), ("learning_rate", True),
        ("class_weights", None), ("class_weights", 1.0), ("views", ["mfcc"]), ("fold", 1.5), ("corpus", True),
        ("speech_encoder", "a\0b"), ("speech_encoder", "\udcff"), ("fold", "x" * 5000),
    ],
)  # fmt: skip
def test_what_no_value_stands_for(name, value):
    with pytest.raises(ParameterError, match=f"^{name}=.*, expected "):
        convert(name, value)


def nested(levels, kind):
    value = kind()
    for _ in range(levels):
        value = [value] if kind is list else {"a": value}
    return value


MONSTERS = {
    "nested lists": nested(5000, list), "nested tables": nested(5000, dict), "digits": 10**6000,
    "digits as text": "9" * 6000, "a long list": list(range(10**5)), "a long text": "x" * 10**5, "bytes": b"\xff" * 999,
}  # fmt: skip


@pytest.mark.parametrize("value", MONSTERS.values(), ids=MONSTERS)
@pytest.mark.parametrize(
    "refuse",
    [
        *(pytest.param(lambda value, name=name: Experiment.of({name: value}), id=name) for name in SETTINGS),
        pytest.param(lambda value: runs.start_run(value, corpus="demo"), id="run"),
        pytest.param(lambda value: runs.start_run("trial", corpus="demo", root=value), id="root"),
        pytest.param(lambda value: runs.start_run("trial", corpus="demo", settings=value), id="settings"),
        pytest.param(lambda value: runs.load_predictions("trial", value), id="variant"),
        pytest.param(lambda value: corpora.load(value), id="which corpus"),
        pytest.param(lambda value: recipe.named(value), id="which recipe"),
        pytest.param(lambda value: check_range("jobs", value, 0, 256, whole=True), id="range"),
        pytest.param(lambda value: check_choice("score", value, ("ua", "wa")), id="choice"),
    ],
)
def test_what_is_absurd_is_refused_in_a_short_sentence(project, refuse, value):
    with pytest.raises(SerkitError) as caught:
        refuse(value)
    quoted = str(caught.value).partition(", expected")[0]
    assert len(quoted) <= 110 and len(str(caught.value)) <= 600


@pytest.mark.parametrize(
    ("more", "micro_batch"),
    [
        (None, None),
        ({}, None),
        ("null", None),
        ({"micro_batch": "8"}, 8),
        ('{"micro_batch": 8, "compile": "no"}', 8),
    ],
)
def test_settings_by_name_may_come_as_text(project, more, micro_batch):
    experiment = runs.start_run("trial", corpus="demo", settings=more).experiment
    assert experiment.micro_batch == micro_batch and not experiment.compile


@pytest.mark.parametrize("more", ["", "0", [], "[1]", "{micro_batch: 8}", "{1: 2}", 8, True])
def test_settings_by_name_that_are_none(project, more):
    with pytest.raises(
        ParameterError, match=r'^settings=.*, expected settings by name, such as {"micro_batch": 8}$'
    ):
        runs.start_run("trial", corpus="demo", settings=more)


@pytest.mark.parametrize("corpus", ["ravdess", "emodb"])
def test_a_speaker_whose_number_lost_its_zero(corpus):
    about = {"corpus": corpus, "by": "speaker"}
    assert Experiment(**about, fold=1).folder("r") == Experiment(**about, fold="01").folder("r")
    assert Experiment(corpus=corpus, by="session", fold=1).fold == "1"


def test_a_recipe_that_computes_the_same_is_called_the_same():
    names = ("corrected-D1", "corrected-D1-D1", "corrected+D2-D1", "corrected-D1-D3+D3")
    assert len({Experiment(recipe=name).key for name in names}) == 1


@pytest.mark.parametrize("given", [[1], {}, None, 1.5])
def test_a_parameter_of_a_notebook_that_is_no_text(given):
    with pytest.raises(ParameterError, match=r"^speaker=.*, expected text$"):
        declared({"__annotations__": {"speaker": str}, "speaker": given})


def test_the_command_line_hands_on_what_was_given(project, monkeypatch):
    given = {}
    monkeypatch.setattr("serkit.reproduction.reproduce.reproduce", lambda run, **rest: given.update(rest))
    words = (
        "--epochs 3 --learning-rate 1e-4 --class-weights --no-encoder-cache --micro-batch none --seeds 1,2"
    )
    cli.run(["reproduce", *words.split()])
    expected = {
        "epochs": 3,
        "learning_rate": 1e-4,
        "class_weights": True,
        "encoder_cache": False,
        "seeds": [1, 2],
    }
    assert given.items() >= expected.items()
    assert not given.keys() & (SETTINGS.keys() - expected.keys() - {"corpus"})


def test_a_switch_of_the_command_line_takes_no_value(project, capsys):
    with pytest.raises(SystemExit) as caught:
        on_the_command_line("class_weights", "maybe")
    assert caught.value.code == 2 and "maybe" in capsys.readouterr().err


def test_the_command_line_ends_with_one_sentence(project):
    command = [sys.executable, "-m", "serkit.cli", "reproduce", "--epochs", "2.5"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"serkit: epochs=2.5, expected a whole number from 1 to 1000 epochs, {OWN}\n"


def test_paper_profile_has_the_published_training():
    paper = Experiment(profile="paper")
    assert (paper.learning_rate, paper.batch_size, paper.epochs) == (1e-5, 64, 100)
    assert (paper.patience, paper.min_epochs) == (8, 7)


def test_given_values_win_over_the_profile():
    assert Experiment(profile="paper", epochs=3).epochs == 3


@pytest.mark.parametrize("profile", ["demo", "paper"])
def test_a_head_on_a_frozen_encoder_learns_as_fast_in_either_profile(profile):
    frozen = {"profile": profile, "encoder_training": "frozen"}
    assert Experiment(**frozen).learning_rate == 1e-3
    assert Experiment(**frozen, learning_rate=1e-5).learning_rate == 1e-5
    usual = Experiment(profile=profile).learning_rate
    assert Experiment(**frozen, views="spectrogram+mfcc").learning_rate == usual  # nothing is frozen in it


def test_an_encoder_that_is_not_there_names_nothing():
    about = {"speech_encoder": "wavlm-base", "encoder_training": "frozen", "encoder_layers": "weighted"}
    without = Experiment(views="spectrogram+mfcc", **about)
    assert without == Experiment(views="spectrogram+mfcc") and not without.reads_states
    assert without.variant == "corrected_clean_session_demo_spectrogram+mfcc"
    assert Experiment(views="mfcc+speech", **about).reads_states


def test_every_field_changes_the_key():
    base = Experiment()
    changes = {
        "corpus": "ravdess", "recipe": "published", "selection": "last", "by": "speaker", "fold": "2",
        "seed": 1, "profile": "paper", "epochs": 1, "batch_size": 1, "learning_rate": 0.5, "patience": 1,
        "min_epochs": 1, "precision": "bf16", "micro_batch": 2, "encoder_learning_rate": 0.5, "weight_decay": 0.5,
        "warmup": 0.5, "schedule": "linear", "class_weights": True, "label_smoothing": 0.5, "max_grad_norm": 1.0,
        "speech_encoder": "random", "cnn_weights": "imagenet", "encoder_training": "frozen",
        "encoder_layers": "weighted", "encoder_cache": False, "gradient_checkpointing": True, "compile": True, "checkpoint_rule": "loss",
        "views": "mfcc", "fusion": "mean", "keep_epochs": False, "unseen_text": True,
    }  # fmt: skip
    assert set(changes) == {field for field in base.__dataclass_fields__}
    keys = {Experiment(**{name: value}).key for name, value in changes.items()}
    assert len(keys | {base.key}) == len(changes) + 1


def test_what_changes_the_encoder_has_a_folder_of_its_own():
    names = {
        Experiment(**settings).variant
        for settings in ({}, {"encoder_training": "frozen"}, {"encoder_layers": "weighted"},
                         {"encoder_training": "top_2"}, {"speech_encoder": "microsoft/wavlm-base"},
                         {"encoder_layers": 9})
    }  # fmt: skip
    assert "corrected_clean_session_demo_layer9" in names
    assert "corrected_clean_session_demo" in names
    assert "corrected_clean_session_demo_wavlm-base" in names
    assert len(names) == 6
    unseen = {"speech_encoder": "a/b", "encoder_training": "frozen", "encoder_layers": "weighted"}
    assert Experiment(views="mfcc", **unseen).variant == "corrected_clean_session_demo_mfcc"


def test_a_fold_number_from_papermill_is_the_same_fold():
    assert Experiment(fold=1).key == Experiment(fold="1").key


def test_what_is_resolved_is_what_was_meant():
    assert Experiment(epochs=15, batch_size="8") == Experiment() == Experiment(epochs=None)
    assert Experiment(seed=111.0).folder("r") == Experiment().folder("r")


class TestDeclared:
    """What papermill hands over, against the types that a notebook declares."""

    @pytest.mark.parametrize(
        ("kind", "given", "wanted"),
        [
            (bool, "false", False), (bool, "no", False), (bool, 0, False), (bool, "True", True), (int, 16.0, 16),
            (int, "01", 1), (float, 1, 1.0), (float, "1e-4", 1e-4), (str, 2024, "2024"), (str, "ab", "ab"),
        ],
    )  # fmt: skip
    def test_brought_to_the_type(self, kind, given, wanted):
        names = {"__annotations__": {"x": kind}, "x": given}
        declared(names)
        assert names["x"] == wanted and type(names["x"]) is kind

    @pytest.mark.parametrize(
        ("kind", "given", "expected"),
        [(bool, "maybe", "true or false"), (int, 2.5, "a whole number"), (int, "two", "a whole number"),
         (float, "1,5", "a number"), (str, 1.5, "text"), (str, True, "text")],
    )  # fmt: skip
    def test_refused(self, kind, given, expected):
        with pytest.raises(ParameterError, match=f"^x=.*, expected {expected}$"):
            declared({"__annotations__": {"x": kind}, "x": given})

    def test_what_a_cell_made_of_a_parameter_stays(self):
        made = {"__annotations__": {"run": str, "later": int}, "run": object()}
        before = dict(made)
        declared(made)
        assert made == before
