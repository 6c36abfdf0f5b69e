"""The plan of a reproduction: which notebook runs with which parameters, for one variant or for a grid of them."""

import ast
import hashlib
import json
import tomllib
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path

from serkit import folds, runs
from serkit.constants import VIEW_SETS
from serkit.errors import ParameterError, RunError, SerkitError, reported_as, shown
from serkit.experiment import SETTINGS, Experiment, check_names, convert, of_type, project_home

PREPARATION = ("01_prepare_corpus", "02_mfcc", "03_spectrogram", "04_wav2vec2")
TRAINING = "05_train_coattention"
ANALYSIS = "06_confusion_matrix"
ABLATIONS = "07_ablations"
ALWAYS = ("recipe", "selection", "by", "profile", "fold", "seed")  # given to notebook 05, usual or not
ALL = "*"  # variants
MOST = 1000  # trainings of a plan, and variants of a grid
GRID_SIZE = 20_000  # bytes of a grid; a longer name of thousands of parts would take minutes to read
COMMON = ("corpus", "root", "run", "folds", "seeds")  # of a grid's [common] only: the same for all variants
VARIED = [name for name in SETTINGS if name not in ("corpus", "fold", "seed")]  # these may differ


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
        return f"{self.notebook}  {' '.join(filter(None, (self.label, fold)))}".strip()

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
        tagged = (cell["source"] for cell in cells if "parameters" in cell["metadata"].get("tags", []))
        nodes = ast.walk(ast.parse("".join(next(tagged, ""))))
        return [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]

    def key(self):
        """Hash of parameters, notebook and finished folds: where one of them changed, it runs again."""
        content = json.dumps(self.parameters, sort_keys=True, default=str)
        if self.reads:
            for folder in runs.find_folds(self.parameters["run"], self.reads, self.home):
                inventory = folder / runs.FILES
                content += f"{folder.relative_to(self.home)} {runs.sha256_of(inventory) if inventory.is_file() else ''}"
        return hashlib.sha256(content.encode() + self.source.read_bytes()).hexdigest()[:16]

    def is_done(self):
        """Whether nothing is left to do here."""
        if self.experiment is not None:
            return runs.is_done(self.output.parent, self.experiment) and _has_ended(self.output)
        with suppress(OSError, ValueError, KeyError):
            finished = json.loads(self.record.read_text())["key"] == self.key()
            return finished and all(path.exists() for path in self.needs)
        return False

    def check(self):
        """Refuse parameters that the notebook does not have (papermill only warns), and foreign results."""
        with _about(self.notebook):
            check_names(self.parameters, self.known_parameters())
        if self.experiment is not None:
            runs.check_folder(self.output.parent, self.experiment)


def _has_ended(path):
    """Whether an executed notebook got through its last cell: what comes after a training draws its figures."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        last = [cell for cell in cells if cell["cell_type"] == "code"][-1]
        kinds = [output["output_type"] for output in last["outputs"]]
        return last["execution_count"] is not None and "error" not in kinds
    return False


@contextmanager
def _about(what):
    """Say of a mistake where it stands."""
    try:
        yield
    except SerkitError as error:
        raise ParameterError(f"{what}: {error}") from error


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
        Whether to do without sounds that turn out unusable, see ``serkit.features.store.build_store``.
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
    variants = [(label if len(variants) > 1 else "", changes) for label, changes in variants] or [("", {})]
    bases = {label: Experiment.of({"corpus": corpus} | settings | changes) for label, changes in variants}
    shared = {"run": run, "corpus": corpus, "root": root}
    steps = _preparation(shared, list(bases.values()), {"iemocap_check": check, "skip_broken": skip_broken})
    seeds, together = list(dict.fromkeys(seeds)), []
    for label, base in bases.items():
        all_folds = folds.make_folds(manifest, *base.protocol)
        named = {fold.name: fold for fold in (folds.find_fold(all_folds, name) for name in fold_names)}
        chosen = list(named.values()) or all_folds
        if len(bases) * len(chosen) * len(seeds) > MOST:
            asked = f"{len(bases)} variants, {len(chosen)} folds and {len(seeds)} seeds"
            raise ParameterError(f"{asked} are more than {MOST} trainings; plan them as several runs")
        for seed, fold in product(seeds, chosen):
            steps.append(_training(shared, replace(base, fold=fold.name, seed=seed), label))
        parameters = {"run": run, "variant": base.variant, "partial": len(chosen) < len(all_folds)}
        suffix = f"_{base.variant}" if label else ""
        together.append(_step(ANALYSIS, parameters, suffix, label=label, reads=base.variant))
    return [*steps, *together, _step(ABLATIONS, {"run": run}, reads=ALL)]


def _step(notebook, parameters, suffix="", **about):
    folder = project_home() / "runs" / parameters["run"] / "notebooks"
    return Step(notebook, dict(parameters), folder / f"{notebook}{suffix}.ipynb", **about)


def _preparation(shared, bases, about_corpus):
    """Notebooks 01 to 04; 01 once more for each further protocol, whose folds it writes down."""
    needs = (runs.processed_folder(shared["corpus"]) / runs.MANIFEST,)
    shared = shared | {"recipe": bases[0].recipe}
    steps = []
    for by, selection in dict.fromkeys((base.by, base.selection) for base in bases):
        suffix, label = (f"_{by}_{selection}", f"by={by} selection={selection}") if steps else ("", "")
        parameters = shared | {"by": by, "selection": selection} | about_corpus
        steps.append(_step(PREPARATION[0], parameters, suffix, needs=needs, label=label))
    steps += [_step(name, shared | {"profile": bases[0].profile}, needs=needs) for name in PREPARATION[1:]]
    hearing = [base for base in bases if "speech" in VIEW_SETS[base.views]] or bases
    for step in steps[-2:]:  # the first shows AlexNet, both know its weights
        known = {"speech_encoder", "cnn_weights"} & {*step.known_parameters()}
        pretrained = {name: getattr(hearing[0], name) for name in known}
        step.parameters.update({name: value for name, value in pretrained.items() if value})
    return steps


def _training(shared, experiment, label):
    """Notebook 05: what it has no parameter for, and is not as usual, goes into its ``settings``."""
    output = experiment.folder(shared["run"]) / f"{TRAINING}.ipynb"
    step = Step(TRAINING, shared | {"name_variant": bool(label)}, output, experiment, label=label)
    known, usual, rest = step.known_parameters(), asdict(Experiment(profile=experiment.profile)), {}
    for name, value in asdict(experiment).items():
        if value != usual[name] or name in ALWAYS:
            (step.parameters if name in known else rest)[name] = value
    step.parameters["settings"] = rest
    return step


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
    about, unreadable = f"grid {path}: is not TOML", (OSError, ValueError, RecursionError)
    with reported_as(ParameterError, about, "see notebooks/grids/demo.toml", unreadable):
        if path.stat().st_size > GRID_SIZE or not path.is_file():
            raise ValueError(f"no file of at most {GRID_SIZE} bytes")
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    with _about(f"grid {path.name}"):
        check_names(content, ("title", "common", "variant"))
        title = of_type(str, "title", content.get("title", path.stem))
    common, variants, folders = content.get("common", {}), {}, set()
    with _about(f"grid {path.name}, [common]"):
        _check_table(common, (*COMMON, *VARIED))
        corpus = convert("corpus", common.get("corpus", "demo"))
        names = _values("fold", common.get("folds", "all"))
        seeds = _values("seed", common.get("seeds", 111))
        root, run = (of_type(str, name, common.get(name, "")) for name in ("root", "run"))
    shared = {name: value for name, value in common.items() if name in VARIED}
    tables = content.get("variant", [{}] if shared else [])
    for number, table in enumerate(tables if isinstance(tables, list) else [tables], start=1):
        with _about(f"grid {path.name}, variant {number}"):
            for label, settings in _combinations(table, shared):
                folder = Experiment.of({"corpus": corpus} | settings).variant
                label = label or folder
                if len(variants) == MOST:
                    raise ParameterError(f"more than {MOST} variants; plan them as several grids")
                if label in variants or folder in folders:
                    taken = f"variant {shown(label)} has the name or the folder ({folder}) of another one"
                    raise ParameterError(f"{taken}; take it out, or give it a grid and a run of its own")
                variants[label] = settings
                folders.add(folder)
    if not variants:
        raise ParameterError(f"grid {path}: holds no variant; add a table that begins with [[variant]]")
    chosen = [] if names == ["all"] else names
    return Grid(path, title, corpus, root, run, list(variants.items()), chosen, seeds)


def _check_table(table, known):
    if not isinstance(table, dict):
        raise ParameterError(f"{shown(table)}, expected settings: lines of the form `name = value`")
    check_names(table, known)


def _values(name, given):
    """The values of a setting, each once: a list of them, or a single one."""
    values = [convert(name, value) for value in (given if isinstance(given, list) else [given])]
    if not values:
        raise ParameterError(f"{name}=[], expected a value, or a list of at least one")
    return list(dict.fromkeys(values))


def _combinations(table, shared):
    """Label and settings of each combination of values that a table asks for; no label: named as its folder."""
    _check_table(table, ("name", *COMMON, *VARIED))
    for name in table.keys() & COMMON:
        raise ParameterError(f"{name} is the same for all variants; move it to [common]")
    values = {name: _values(name, given) for name, given in (shared | table).items() if name != "name"}
    for choice in product(*values.values()):
        settings = dict(zip(values, choice, strict=True))
        chosen = [f"{name}={value}" for name, value in settings.items() if len(values[name]) > 1]
        yield ", ".join([of_type(str, "name", table["name"]), *chosen]) if "name" in table else "", settings
