"""Grids: read by hand, multiplied out, and every mistake refused before anything runs."""

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import nbformat
import pytest
import toy_project

from serkit import cli, runs
from serkit.errors import ParameterError, shown
from serkit.experiment import Experiment
from serkit.reproduction import plan, reproduce
from serkit.reproduction.plan import VARIED, read_grid

DEMO = Path(__file__).parents[2] / "notebooks" / "grids" / "demo.toml"


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "trial.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def project(tmp_path, monkeypatch):
    return toy_project.make_project(tmp_path, monkeypatch)


def finish(step):
    """What a training leaves: its folder, and a notebook that got through its last cell."""
    step.output.parent.mkdir(parents=True, exist_ok=True)
    runs.mark_done(step.output.parent, step.experiment)
    cells = [nbformat.v4.new_code_cell("print(1)", execution_count=count) for count in (1, 2)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), step.output)


class TestRead:
    def test_by_hand(self, write):
        grid = read_grid(
            write("""
                title = "two"
                [common]
                corpus = "ravdess"
                root = "somewhere"
                folds = [2, "1"]
                seeds = [5]
                epochs = 3
                [[variant]]
                name = "as published"
                recipe = "published"
                epochs = 4
                [[variant]]
            """)
        )
        assert (grid.title, grid.corpus, grid.root, grid.run) == ("two", "ravdess", "somewhere", "")
        assert (grid.folds, grid.seeds) == (["2", "1"], [5])
        assert grid.variants == [
            ("as published", {"epochs": 4, "recipe": "published"}),
            ("corrected_clean_session_demo", {"epochs": 3}),
        ]

    def test_what_is_not_said(self, write):
        grid = read_grid(write("[[variant]]"))
        assert (grid.title, grid.corpus, grid.folds, grid.seeds) == ("trial", "demo", [], [111])
        assert grid.variants == [("corrected_clean_session_demo", {})]

    def test_lists_are_multiplied_out(self, write):
        grid = read_grid(
            write("""
                [common]
                recipe = ["published", "corrected"]
                [[variant]]
                selection = ["clean", "last"]
                [[variant]]
                name = "frozen"
                encoder_training = "frozen"
            """)
        )
        assert [label for label, _ in grid.variants] == [
            "published_clean_session_demo", "published_last_session_demo", "corrected_clean_session_demo",
            "corrected_last_session_demo", "frozen, recipe=published", "frozen, recipe=corrected",
        ]  # fmt: skip

    def test_a_single_list_needs_no_variant(self, write):
        assert len(read_grid(write('[common]\nby = ["session", "speaker"]')).variants) == 2

    def test_a_single_value_is_a_list_of_one_and_twice_is_once(self, write):
        grid = read_grid(write("[common]\nfolds = 2\nseeds = [5, 5]\nby = ['session', 'session']\n[variant]"))
        assert (grid.folds, grid.seeds) == (["2"], [5])
        assert grid.variants == [("corrected_clean_session_demo", {"by": "session"})]

    def test_every_field_of_an_experiment_may_stand_in_it(self):
        assert set(VARIED) == {field.name for field in fields(Experiment)} - {"corpus", "fold", "seed"}

    def test_the_demo_grid(self):
        grid = read_grid(DEMO)
        assert [label for label, _ in grid.variants] == ["corrected", "published"]
        assert (grid.corpus, grid.folds, grid.seeds) == ("demo", [], [111, 211])


class TestRefused:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("variant = ", "is not TOML (Invalid value (at "),
            ("", "holds no variant; add a table that begins with [[variant]]"),
            ("[common]\nseeds = [1]", "holds no variant; add"),
            ("variant = []", "holds no variant; add"),
            ("[[variants]]", "trial.toml: 'variants' is not a setting, did you mean 'variant'?"),
            ("[common]\ncorpsu = 'demo'", "[common]: 'corpsu' is not a setting, did you mean 'corpus'?"),
            ("[common]\nzzz = 1", "[common]: 'zzz' is not a setting, expected one of corpus, root, run, folds,"),
            ("[common]\ncorpus = '../x'\n[[variant]]", "[common]: corpus='../x', expected one of "),
            ("[common]\nseeds = []\n[[variant]]", "[common]: seed=[], expected a value, or a list of at least one"),
            ("[common]\nseeds = [1.5]\n[[variant]]", "[common]: seed=1.5, expected a whole number"),
            ("[common]\nseeds = [-1]\n[[variant]]", "[common]: seed=-1, expected a"),
            ("[common]\nfolds = [1.5]\n[[variant]]", "[common]: fold=1.5, expected text"),
            ("[[variant]]\n[[variant]]\nname = 'b'\nepoch = 3", "variant 2: 'epoch' is not a setting, did you mean 'epochs'?"),
            ("common = 3\n[[variant]]", "[common]: 3, expected settings: lines of the form"),
            ("variant = [1]", "variant 1: 1, expected settings: lines of the form"),
            ("[[variant]]\nseeds = [3]", "variant 1: seeds is the same for all variants; move it to [common]"),
            ("[[variant]]\nfold = '3'", "variant 1: 'fold' is not a setting"),
            ("[[variant]]\nname = 'b'\nepochs = 0.5", "variant 1: epochs=0.5, expected"),
            ("[[variant]]\nepochs = true", "variant 1: epochs=True, expected"),
            ("[[variant]]\nepochs = -3", "variant 1: epochs=-3, expected a"),
            ("[[variant]]\nrecipe = 'perfect'", "variant 1: recipe='perfect', expected published or corrected"),
            ("[[variant]]\nrecipe = []", "variant 1: recipe=[], expected a value, or a list of at least one"),
            (
                "[[variant]]\nname = 'a'\n[[variant]]\nname = 'a'\nrecipe = 'published'",
                "variant 2: variant 'a' has the name or the folder (published_clean_session_demo) of another one",
            ),
            (
                "[[variant]]\nname = 'a'\n[[variant]]\nname = 'b'\nepochs = 10",
                "variant 2: variant 'b' has the name or the folder (corrected_clean_session_demo) of another one; take "
                "it out, or give it a grid and a run of its own",
            ),
            ("[common]\nepochs = [3, 4]", "the folder (corrected_clean_session_demo) of another one"),
            ("[[variant]]\nrecipe = 'corrected-D1'\n[[variant]]\nrecipe = 'corrected-D1-D1'", "(corrected-D1_clean_session_demo)"),
            ("a = " + "[" * 2000 + "]" * 2000, "is not TOML (maximum recursion depth"),
            ("[common]\nepochs = " + "{a=" * 900 + "1" + "}" * 900, "recursion"),
            ("[common]\n" + ".".join("a" * 12_000) + " = 1", "is not TOML (no file of at most 20000 bytes)"),
            ("a = 1\n" + "# a comment\n" * 9000, "is not TOML (no file of at most 20000 bytes)"),
            ("[common]\nseeds = " + "9" * 4900, "is not TOML (Exceeds the limit"),
            ("title = ['" + "x" * 999 + "']", "title=['" + "x" * 55 + "..., expected text"),
            ("[common]\nroot = {a = 1}", "[common]: root={'a': 1}, expected text"),
            ("[[variant]]\nname = ['a']", "variant 1: name=['a'], expected text"),
            ("[[variant]]\nspeech_encoder = [" + ", ".join(f"'{k}'" for k in range(501)) + "]\nviews = ['all', 'speech']",
             "more than 1000 variants; plan them as several grids"),
        ],
    )  # fmt: skip
    def test_in_one_sentence(self, write, text, message):
        path = write(text)
        with pytest.raises(ParameterError) as caught:
            read_grid(path)
        assert str(caught.value).startswith((f"grid {path}: ", f"grid {path.name}"))
        assert message in str(caught.value) and "\n" not in str(caught.value)

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(ParameterError, match=r"none.toml: is not TOML \(.*No such file"):
            read_grid(tmp_path / "none.toml")

    def test_no_text(self, tmp_path):
        (tmp_path / "a.toml").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ParameterError, match=r"a.toml: is not TOML"):
            read_grid(tmp_path / "a.toml")


def plan_of(grid, **changes):
    about = {"corpus": grid.corpus, "fold_names": grid.folds, "seeds": grid.seeds, "variants": grid.variants}
    return plan.make_plan("trial", toy_project.manifest(), **(about | changes))


class TestPlan:
    def test_counts_and_order(self, project):
        steps = plan_of(read_grid(DEMO))
        kinds = [step.notebook[:2] for step in steps]
        assert kinds == ["01", "02", "03", "04"] + ["05"] * 20 + ["06"] * 2 + ["07"]
        assert len({step.title for step in steps}) == 27 and len({step.output for step in steps}) == 27
        assert steps[4].title == "05_train_coattention  corrected fold=1 seed=111"
        assert steps[14].parameters["recipe"] == "published" and steps[14].parameters["name_variant"] is True
        assert [step.parameters["partial"] for step in steps[-3:-1]] == [False, False]
        assert steps[-2].output == (
            project / "runs/trial/notebooks/06_confusion_matrix_published_clean_session_demo.ipynb"
        )

    def test_one_variant_is_named_as_without_a_grid(self, project, write):
        alone = plan_of(read_grid(write("[common]\nprofile = 'demo'\nfolds = [1]\n[[variant]]\nname = 'a'")))
        usual = plan.make_plan(
            "trial", toy_project.manifest(), corpus="demo", fold_names=["1"], profile="demo"
        )
        assert [(s.title, s.output, s.parameters) for s in alone] == [
            (s.title, s.output, s.parameters) for s in usual
        ]
        assert alone[-2].output.name == "06_confusion_matrix.ipynb"
        assert alone[-2].parameters["partial"] is True  # notebook 06 refuses one fold of five otherwise

    def test_the_folds_of_every_protocol_are_written_down(self, project, write):
        steps = plan_of(read_grid(write("[common]\nselection = ['clean', 'last']")))
        first, second = (step for step in steps if step.notebook == "01_prepare_corpus")
        assert first.output.name == "01_prepare_corpus.ipynb"
        assert second.output.name == "01_prepare_corpus_session_last.ipynb"
        assert second.parameters["selection"] == "last"

    def test_what_the_notebook_has_no_parameter_for_is_among_its_settings(self, project, write):
        text = "[common]\nepochs = 3\n[[variant]]\nencoder_training = 'frozen'\npatience = 3\n[[variant]]"
        steps = plan_of(read_grid(write(text)))
        training = [step for step in steps if step.experiment is not None]
        frozen, usual = training[0].parameters, training[-1].parameters
        assert frozen["epochs"] == usual["epochs"] == 3  # which it has
        assert frozen["settings"] == {"encoder_training": "frozen", "learning_rate": 1e-3, "patience": 3}
        assert usual["settings"] == {}
        about = {"corpus", "run", "root", "name_variant", "settings"}
        for parameters in (frozen, usual):
            given = {name: value for name, value in parameters.items() if name not in about}
            again = Experiment(corpus="demo", **given, **parameters["settings"])
            assert again.key in {step.experiment.key for step in training}

    def test_notebook_06_is_told_which_variant(self, project, write):
        steps = plan_of(read_grid(write("[[variant]]\nencoder_training = 'frozen'\n[[variant]]")))
        names = ["corrected_clean_session_demo_frozen", "corrected_clean_session_demo"]
        assert [step.parameters["variant"] for step in steps[-3:-1]] == names

    def test_a_fold_that_is_not_there(self, project, write):
        with pytest.raises(ParameterError, match="fold=9, expected one of 1, 2, 3, 4, 5"):
            plan_of(read_grid(write("[common]\nfolds = [9]\n[[variant]]")))

    def test_a_fold_or_seed_that_is_given_twice_is_trained_once(self, project):
        steps = toy_project.training_steps(1, seeds=(111, 111)) + toy_project.training_steps(1)
        assert {step.title for step in steps} == {steps[0].title} and len(steps) == 2
        twice = plan.make_plan("trial", toy_project.manifest(), corpus="demo", fold_names=["2", "1", "2"])
        assert [step.experiment.fold for step in twice if step.experiment] == ["2", "1"]

    def test_twenty_thousand_seeds_are_refused_at_once(self, project):
        with pytest.raises(
            ParameterError, match="5 folds and 20000 seeds are more than 1000 trainings; plan them"
        ):
            plan.make_plan("trial", toy_project.manifest(), corpus="demo", seeds=range(20_000))

    def test_a_pipe_is_no_grid(self, project):
        os.mkfifo("grid.toml")
        with pytest.raises(ParameterError, match=r"grid grid\.toml: is not TOML"):
            read_grid("grid.toml")

    def test_what_is_done_is_not_done_again(self, project):
        steps = plan_of(read_grid(DEMO))
        for step in steps[4:9]:
            finish(step)
        assert len(plan.unfinished(steps)) == 27 - 5

    def test_a_notebook_that_broke_off_after_its_training_is_run_again(self, project):
        """Its figures come last."""
        (step, *_) = toy_project.training_steps(1)
        for broken in (
            lambda text: text.replace('"execution_count": 2', '"execution_count": null'),
            lambda text: text.replace('"outputs": []', '"outputs": [{"output_type": "error"}]'),
            lambda text: text[:-20],
        ):
            finish(step)
            assert step.is_done()
            step.output.write_text(broken(step.output.read_text()))
            assert not step.is_done()
        step.output.unlink()
        assert not step.is_done()

    def test_dry_run_says_everything_and_writes_nothing(self, project, capsys):
        grid = read_grid(project / "notebooks" / "grids" / "demo.toml")
        assert reproduce.reproduce("trial", grid=grid, corpus="demo", dry_run=True, jobs=2) == 0
        text = capsys.readouterr().out
        assert "grid notebooks/grids/demo.toml: Corrected and published features" in text
        assert "27 steps, 0 done before" in text
        assert re.search(r"\n +step +time +memory +recipe\n", text)
        line = (
            r"\n24  05_train_coattention  published fold=5 seed=211 +at most \d+\.\d min +1.0 GB +published\n"
        )
        assert re.search(line, text)
        assert "profile=demo" in text and "2 trainings at a time" in text and "disk: " in text
        assert not (project / "runs").exists()

    def test_two_at_a_time_take_half_of_the_training_time(self, project, capsys):
        minutes = []
        for jobs in (1, 2):
            reproduce.reproduce("trial", grid=read_grid(DEMO), corpus="demo", dry_run=True, jobs=jobs)
            minutes.append(int(re.search(r"everything: at most (\d+) min", capsys.readouterr().out)[1]))
        preparation = 6 * 15 / 60
        assert minutes[1] - preparation == pytest.approx((minutes[0] - preparation) / 2, abs=1)


class TestCommandLine:
    @pytest.fixture
    def asked(self, project, monkeypatch):
        """What the command line hands to the driver."""
        calls = []
        monkeypatch.setattr(reproduce, "reproduce", lambda run, **settings: calls.append((run, settings)))
        return calls

    def test_the_command_line_wins(self, asked, write):
        path = write("[common]\ncorpus = 'ravdess'\nroot = 'a'\nrun = 'mine'\n[[variant]]")
        cli.Reproduce(grid=str(path), jobs=3)()
        cli.Reproduce(grid=str(path), corpus="demo", run="other", root="b")()
        (first, given), (second, changed) = asked
        assert (first, given["corpus"], Path(given["root"]).name, given["jobs"]) == (
            "mine",
            "ravdess",
            "a",
            3,
        )
        assert (second, changed["corpus"], Path(changed["root"]).name) == ("other", "demo", "b")

    def test_folders_are_those_of_where_one_is(self, asked, tmp_path, monkeypatch):
        """Notebooks run in the project; what isn't a folder here is an id of the hub."""
        (tmp_path / "here/my-encoder").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / "here")
        for name in ("my-encoder", "openai/whisper-base"):
            cli.Reproduce(speech_encoder=name)()
        given = [settings["speech_encoder"] for _, settings in asked]
        assert given == [str(tmp_path / "here/my-encoder"), "openai/whisper-base"]

    def test_a_run_is_called_like_its_grid(self, asked, write):
        cli.Reproduce(grid=str(write("[[variant]]")))()
        assert asked[0][0] == "trial" and "recipe" not in asked[0][1]

    @pytest.mark.parametrize(
        "setting", [{"epochs": 3}, {"seeds": "1"}, {"recipe": "published"}, {"profile": "paper"}]
    )
    def test_a_setting_beside_a_grid_is_refused(self, asked, write, setting):
        ((name, value),) = setting.items()
        message = f"{name}={shown(value)} beside a grid; write it into .*trial.toml"
        with pytest.raises(ParameterError, match=message):
            cli.Reproduce(grid=str(write("[[variant]]")), **setting)()

    def test_one_message_and_no_traceback(self, project, write):
        command = [sys.executable, "-m", "serkit.cli", "reproduce", "--grid", str(write("[[varaint]]"))]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True)
        assert done.returncode == 2
        assert "did you mean 'variant'?" in done.stderr and "Traceback" not in done.stderr
