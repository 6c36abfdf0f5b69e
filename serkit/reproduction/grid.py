"""A grid: the variants, folds and seeds of a whole reproduction in one TOML file, checked before anything runs."""

import tomllib
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from serkit.errors import ParameterError, SerkitError
from serkit.experiment import SETTINGS as ALL_SETTINGS
from serkit.experiment import Experiment, check_names, convert

PLACES = ("corpus", "root", "run")  # of [common]: words that the command line may give as well
REPEATS = ("folds", "seeds")  # of [common]: lists that are no choice between variants
SETTINGS = [name for name in ALL_SETTINGS if name not in ("corpus", "fold", "seed")]  # of a variant


@dataclass(frozen=True)
class Grid:
    """What a grid file asks for."""

    path: Path
    title: str
    corpus: str
    variants: list  # (label, settings): settings are fields of Experiment
    folds: list  # names of the folds to test; empty: all
    seeds: list
    root: str = ""  # folder of the corpus; empty: data/<corpus>
    run: str = ""  # name of the run


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
    content = _read_toml(path)
    _check_names(f"grid {path}", content, ("title", "common", "variant"))
    common = content.get("common", {})
    _check_table(f"grid {path}, common", common, "[common]")
    _check_names(f"grid {path}, [common]", common, (*PLACES, *REPEATS, *SETTINGS))
    for name in ("title", *PLACES):
        value = content.get(name, "") if name == "title" else common.get(name, "")
        if not isinstance(value, str):
            raise ParameterError(f"grid {path}: {name}={value!r}, expected a text in quotes")
    shared = {name: value for name, value in common.items() if name in SETTINGS}
    corpus = common.get("corpus", "demo")
    return Grid(
        path,
        content.get("title", path.stem),
        corpus,
        _read_variants(path, content, shared, corpus),
        [] if common.get("folds", "all") == "all" else _read_list(path, common, "folds", str | int),
        _read_list(path, common, "seeds", int) if "seeds" in common else [111],
        common.get("root", ""),
        common.get("run", ""),
    )


def _read_toml(path):
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParameterError(
            f"grid {path}: can't be read ({error.strerror}); give the path of a TOML file"
        ) from error
    except ValueError as error:  # no TOML, or no text at all
        raise ParameterError(
            f"grid {path}: is no TOML ({error}); see notebooks/grids/demo.toml for an example"
        ) from error


def _check_table(subject, value, expected):
    if not isinstance(value, dict):
        raise ParameterError(f"{subject}={value!r}, expected a table that begins with {expected}")


def _check_names(subject, table, known):
    """Refuse a name that doesn't exist, with the one that may have been meant."""
    try:
        check_names(table, known)
    except ParameterError as error:
        raise ParameterError(f"{subject}: {error}") from None


def _read_list(path, common, name, kind):
    """Folds or seeds: a list of different values, folds as text."""
    values = common[name]
    good = isinstance(values, list) and all(
        isinstance(value, kind) and not isinstance(value, bool) for value in values
    )
    if not good or not values or len(set(map(str, values))) < len(values):
        expected = '"all" or such as [1, 2]' if name == "folds" else "such as [111, 211]"
        raise ParameterError(f"grid {path}, [common]: {name}={values!r}, expected {expected}, none twice")
    if name == "folds":
        return [str(value) for value in values]
    for seed in values:
        try:
            Experiment(seed=seed)
        except ParameterError as error:
            raise ParameterError(f"grid {path}, [common]: {error}") from error
    return values


def _read_variants(path, content, shared, corpus):
    """Labels and settings of all variants, combinations written out, every one of them possible."""
    tables = content.get("variant", [{}] if shared else [])
    if not isinstance(tables, list) or not tables:
        raise ParameterError(
            f"grid {path}: holds no variant; add a table that begins with [[variant]] for each"
        )
    seen, variants = [], []
    for number, table in enumerate(tables, start=1):
        place = f"grid {path}, variant {number}"
        _check_table(place, table, "[[variant]]")
        for name in sorted({*PLACES, *REPEATS} & set(table)):
            raise ParameterError(f"{place}: {name} is the same for all variants; move it to [common]")
        _check_names(place, table, ("name", *SETTINGS))
        name = table.get("name", "")
        if not isinstance(name, str):
            raise ParameterError(f"{place}: name={name!r}, expected a text in quotes")
        place += f" ({name})" if name else ""
        own = {key: value for key, value in table.items() if key != "name"}
        for settings, choice in _combinations(place, shared | own):
            settings, experiment = _build(place, settings, corpus)
            label = ", ".join([name, *(f"{key}={value}" for key, value in choice.items())])
            label = label if name else experiment.variant
            _check_new(path, label, experiment, seen)
            variants.append((label, settings))
    return variants


def _combinations(place, settings):
    """Settings with one value each, and which of them were chosen from a list."""
    for name, value in settings.items():
        if value == []:
            raise ParameterError(f"{place}: {name}=[], expected a value, or a list of at least one")
    lists = {name: value for name, value in settings.items() if isinstance(value, list)}
    for values in product(*lists.values()):
        choice = dict(zip(lists, values, strict=True))
        yield settings | choice, choice


def _build(place, settings, corpus):
    """These settings in their types, and their experiment: whatever it refuses is refused here."""
    try:
        settings = {name: convert(name, value) for name, value in settings.items()}
        return settings, Experiment.of({"corpus": corpus} | settings)
    except SerkitError as error:
        raise ParameterError(f"{place}: {error}") from error


def _check_new(path, label, experiment, seen):
    """Refuse two variants of one folder or of one label."""
    for other, before in seen:
        if before.variant != experiment.variant:
            continue
        now, then = asdict(experiment), asdict(before)
        different = [name for name in now if now[name] != then[name]]
        if not different:
            raise ParameterError(f"grid {path}: variants {other!r} and {label!r} are the same; take one out")
        name = different[0]
        raise ParameterError(
            f"grid {path}: variants {other!r} and {label!r} differ in {', '.join(different)} only "
            f"({name}={then[name]!r} and {now[name]!r}) and would share the folder {experiment.variant}; "
            "give each a grid and a run of its own"
        )
    if label in [other for other, _ in seen]:
        raise ParameterError(f"grid {path}: two variants are called {label!r}; give each a name of its own")
    seen.append((label, experiment))
