"""The plan of a reproduction: which notebook runs with which parameters, for one variant or for a grid of them."""

import ast
import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from itertools import product
from pathlib import Path

from serkit import folds, runs
from serkit.errors import ParameterError, RunError, SerkitError
from serkit.experiment import Experiment, project_home

PREPARATION = ("01_prepare_corpus", "02_mfcc", "03_spectrogram", "04_wav2vec2")
TRAINING = "05_train_coattention"
ANALYSIS = "06_confusion_matrix"
ABLATIONS = "07_ablations"
TOGETHER = (ANALYSIS, ABLATIONS)  # put finished folds together
ALWAYS = ("recipe", "selection", "by", "profile", "fold", "seed")  # given to notebook 05, usual or not
ALL = "*"  # variants
CORPUS = ("corpus", "root", "run")  # of a grid's [common]: words that the command line may give as well
REPEATS = ("folds", "seeds")  # of [common]: lists that are no choice between variants
SETTINGS = [field.name for field in fields(Experiment) if field.name not in ("corpus", "fold", "seed")]


@dataclass(frozen=True)
class Step:
    """One notebook with its parameters; complete in itself, so that it can be sent to another machine."""

    notebook: str
    parameters: dict
    output: Path  # the executed notebook
    experiment: Experiment | None = None  # of a training step
    needs: tuple = ()  # files without which the step is not done
    label: str = ""  # of the variant, where there are several
    reads: str = ""  # the variant whose finished folds are put together, or ALL
    home: Path = field(default_factory=project_home)

    @property
    def title(self):
        """Name of the step in plan and progress; no two steps of a plan have the same."""
        fold = self.experiment and f"fold={self.experiment.fold} seed={self.experiment.seed}"
        words = " ".join(word for word in (self.label, fold) if word)
        return f"{self.notebook}  {words}".strip()

    @property
    def record(self):
        """File that remembers with what this step was finished."""
        return self.output.with_suffix(".done.json")

    @property
    def log(self):
        """File with what the notebook prints while it runs."""
        return self.output.with_suffix(".log")

    @property
    def source(self):
        """The notebook itself."""
        path = self.home / "notebooks" / f"{self.notebook}.ipynb"
        if not path.is_file():
            raise RunError(f"{path} is missing; start serkit inside the project (the folder with notebooks/)")
        return path

    def known_parameters(self):
        """Names of all parameters of the notebook: what its cell with that tag assigns."""
        cells = json.loads(self.source.read_text(encoding="utf-8"))["cells"]
        tagged = (cell for cell in cells if "parameters" in cell["metadata"].get("tags", []))
        nodes = ast.walk(ast.parse("".join(next(tagged, {"source": ""})["source"])))
        return [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]

    def key(self):
        """Hash of parameters, notebook and finished folds: where one of them changed, it runs again."""
        content = json.dumps(self.parameters, sort_keys=True, default=str)
        if self.reads:
            for folder in runs.find_folds(self.parameters["run"], self.reads, self.home):
                content += f"{folder.relative_to(self.home)} {(folder / runs.DONE).read_text()}"
        return hashlib.sha256(content.encode() + self.source.read_bytes()).hexdigest()[:16]

    def is_done(self):
        """Whether nothing is left to do here."""
        if self.experiment is not None:
            return runs.is_done(self.output.parent, self.experiment)
        try:
            finished = json.loads(self.record.read_text())["key"] == self.key()
        except (OSError, ValueError, KeyError):
            return False
        return finished and all(Path(path).exists() for path in self.needs)

    def check(self):
        """Refuse parameters that the notebook does not have (papermill only warns), and foreign results."""
        known = self.known_parameters()
        for name in self.parameters:
            _check(
                name in known,
                f"{self.notebook} has no parameter {name!r}, expected one of {', '.join(known)}",
            )
        if self.experiment is not None:
            runs.check_folder(self.output.parent, self.experiment)


def make_plan(
    run, manifest, *, corpus, root="", check="strict", skip_broken=False, fold_names=(), seeds=(111,), variants=(),
    **settings,
):  # fmt: skip
    """List every step of a reproduction, in order.

    Parameters
    ----------
    run : str
    manifest : pd.DataFrame
        Of the corpus.
    corpus, root : str
    check : {"strict", "report"}
        What to do about an incomplete IEMOCAP, see ``serkit.corpora.load``.
    skip_broken : bool
        Whether to do without sound files that can't be read, see ``serkit.features.store.build_store``.
    fold_names : sequence of str, optional
        Speakers or sessions to test; none means all.
    seeds : sequence of int
    variants : sequence of pair of str and dict, optional
        Label and settings of each, see :attr:`Grid.variants`; default one, of ``settings``.
    **settings
        Further fields of ``serkit.experiment.Experiment``, of all variants.

    Returns
    -------
    list of Step
    """
    variants = [(label, settings | changes) for label, changes in variants] or [("", settings)]
    labels = [label if len(variants) > 1 else "" for label, _ in variants]
    bases = [Experiment(corpus=corpus, **chosen) for _, chosen in variants]
    place = {"run": run, "corpus": corpus, "root": root}
    steps = _preparation(place, bases, {"iemocap_check": check, "skip_broken": skip_broken})
    for label, base in zip(labels, bases, strict=True):
        all_folds = folds.make_folds(manifest, base.by, base.selection)
        chosen = [folds.find_fold(all_folds, name) for name in fold_names] or all_folds
        for seed, fold in product(seeds, chosen):
            steps.append(_training(place, replace(base, fold=fold.name, seed=seed), label))
    for label, base in zip(labels, bases, strict=True):
        parameters = place | {"variant": base.variant} | ({"name_variant": True} if label else {})
        name = f"{ANALYSIS}_{base.variant}" if label else ANALYSIS
        steps.append(Step(ANALYSIS, parameters, _executed(run, name), label=label, reads=base.variant))
    return [*steps, Step(ABLATIONS, place, _executed(run, ABLATIONS), reads=ALL)]


def _executed(run, name):
    return project_home() / "runs" / run / "notebooks" / f"{name}.ipynb"


def _preparation(place, bases, about_corpus):
    """Notebooks 01 to 04; 01 once more for each further protocol, whose folds it writes down."""
    run, first = place["run"], bases[0]
    needs = (runs.processed_folder(first.corpus) / runs.MANIFEST,)
    common = place | {"recipe": first.recipe}
    steps = []
    for by, selection in dict.fromkeys((base.by, base.selection) for base in bases):
        name = f"{PREPARATION[0]}_{by}_{selection}" if steps else PREPARATION[0]
        label = f"by={by} selection={selection}" if steps else ""
        parameters = common | {"by": by, "selection": selection} | about_corpus
        steps.append(Step(PREPARATION[0], parameters, _executed(run, name), needs=needs, label=label))
    for name in PREPARATION[1:]:
        parameters = common | {"profile": first.profile}
        steps.append(Step(name, parameters, _executed(run, name), needs=needs))
    return steps


def _training(place, experiment, label):
    """Notebook 05: what it has no parameter for, and is not as usual, goes into its ``settings``."""
    output = experiment.folder(place["run"]) / f"{TRAINING}.ipynb"
    step = Step(TRAINING, {}, output, experiment, label=label)
    usual = asdict(Experiment(profile=experiment.profile))
    known, parameters, rest = step.known_parameters(), dict(place), {}
    for name, value in asdict(experiment).items():
        if value != usual[name] or name in ALWAYS:
            (parameters if name in known else rest)[name] = value
    parameters |= {"settings": rest} if rest else {}
    return replace(step, parameters=parameters | ({"name_variant": True} if label else {}))


def unfinished(steps):
    """Steps that are to be done; what puts folds together is, where one of its folds is."""
    todo = [step for step in steps if not step.is_done()]
    changed = {step.experiment.variant for step in todo if step.experiment is not None}
    changed |= {ALL} if changed else set()
    return [step for step in steps if step in todo or step.reads in changed]


@dataclass(frozen=True)
class Grid:
    """What a grid file asks for."""

    path: Path
    title: str
    corpus: str
    root: str  # folder of the corpus; empty: data/<corpus>
    run: str  # name of the run; empty: that of the file
    variants: list  # (label, settings): settings are fields of Experiment
    folds: list  # names of the folds to test; empty: all
    seeds: list


def read_grid(path):
    """Read and check a grid.

    ``[common]`` holds settings of all variants, each ``[[variant]]`` those in which it differs; both
    take any field of ``Experiment``. A list in place of a value makes a variant of each of its
    values, several lists make all combinations.

    Parameters
    ----------
    path : path
        TOML file.

    Returns
    -------
    Grid

    Raises
    ------
    ParameterError
        On the first mistake: file, variant, setting, and what was expected.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "two.toml"
    ...     _ = path.write_text('[common]\\nepochs = 3\\nrecipe = ["published", "corrected"]')
    ...     grid = read_grid(path)
    >>> grid.variants[0]
    ('published_clean_session_demo', {'epochs': 3, 'recipe': 'published'})
    >>> len(grid.variants), grid.folds, grid.seeds
    (2, [], [111])
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ParameterError(f"grid {path}: is not TOML ({error}); see notebooks/grids/demo.toml") from error
    _check_table(f"grid {path}", content, "[common]", ("title", "common", "variant"))
    common, about = content.get("common", {}), f"grid {path}, [common]"
    _check_table(about, common, "[common]", (*CORPUS, *REPEATS, *SETTINGS))
    texts = {"title": content.get("title", path.stem), "corpus": common.get("corpus", "demo")}
    texts |= {name: common.get(name, "") for name in ("root", "run")}
    for name, value in texts.items():
        _check(isinstance(value, str), f"grid {path}: {name}={value!r}, expected text in quotes")
    names, seeds = common.get("folds", "all"), common.get("seeds", [111])
    names = (
        [] if names == "all" else _check_list(f"{about}: folds", names, (int, str), '"all" or such as [1, 2]')
    )
    for seed in _check_list(f"{about}: seeds", seeds, (int,), "such as [111, 211]"):
        _experiment(about, {"seed": seed})
    shared = {name: value for name, value in common.items() if name in SETTINGS}
    tables = content.get("variant", [{}] if shared else [])
    missing = f"grid {path}: holds no variant; add a table that begins with [[variant]] for each"
    _check(isinstance(tables, list) and tables, missing)
    variants = {}  # label: settings and experiment
    for number, table in enumerate(tables, start=1):
        where = f"grid {path}, variant {number}"
        for label, settings, experiment in _read_variant(where, table, shared, texts["corpus"]):
            _check_new(f"grid {path}", label, experiment, variants)
            variants[label] = (settings, experiment)
    pairs = [(label, settings) for label, (settings, _) in variants.items()]
    return Grid(path, **texts, variants=pairs, folds=list(map(str, names)), seeds=seeds)


def _check(good, message):
    if not good:
        raise ParameterError(message)


def _check_table(about, table, begins, known):
    """Refuse what is not a table, or holds a name that does not exist; say which may have been meant."""
    _check(isinstance(table, dict), f"{about}: {table!r}, expected a table that begins with {begins}")
    for name in table:
        near = get_close_matches(name, known, n=1)
        expected = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
        _check(name in known, f"{about}: {name!r} is not a setting, {expected}")


def _check_list(about, values, kinds, expected):
    """Folds or seeds: different values."""
    good = isinstance(values, list) and values and all(type(value) in kinds for value in values)
    good = good and len(set(map(str, values))) == len(values)
    _check(good, f"{about}={values!r}, expected {expected}, none twice")
    return values


def _read_variant(about, table, shared, corpus):
    """Label, settings and experiment of each combination of values that a table asks for."""
    for name in sorted({*CORPUS, *REPEATS} & set(table if isinstance(table, dict) else ())):
        raise ParameterError(f"{about}: {name} is the same for all variants; move it to [common]")
    _check_table(about, table, "[[variant]]", ("name", *SETTINGS))
    name = table.get("name", "")
    _check(isinstance(name, str), f"{about}: name={name!r}, expected text in quotes")
    about += f" ({name})" if name else ""
    settings = shared | {key: value for key, value in table.items() if key != "name"}
    lists = {key: value for key, value in settings.items() if isinstance(value, list)}
    for key, values in lists.items():
        _check(values, f"{about}: {key}=[], expected a value, or a list of at least one")
    for values in product(*lists.values()):
        choice = dict(zip(lists, values, strict=True))
        experiment = _experiment(about, {"corpus": corpus} | settings | choice)
        label = ", ".join([name, *(f"{key}={value}" for key, value in choice.items())])
        yield label if name else experiment.variant, settings | choice, experiment


def _experiment(about, settings):
    """The experiment of these settings: whatever it refuses is refused here."""
    try:
        return Experiment(**settings)
    except SerkitError as error:
        raise ParameterError(f"{about}: {error}") from error


def _check_new(about, label, experiment, variants):
    """Refuse two variants of one folder or of one label."""
    now = asdict(experiment)
    for other, (_, before) in variants.items():
        then = asdict(before)
        changes = [f"{name}={then[name]!r} and {now[name]!r}" for name in now if then[name] != now[name]]
        pair = f"{about}: variants {other!r} and {label!r}"
        _check(changes, f"{pair} are the same; take one out")
        share = f"{pair} differ in {', '.join(changes)} only and would share the folder {before.variant}"
        _check(before.variant != experiment.variant, f"{share}; give each a grid and a run of its own")
        _check(other != label, f"{about}: two variants are called {label!r}; give each a name of its own")
