"""How often the intervals of `serkit.evaluation.intervals` hold the true score, by simulation.

``python tests/benchmarks/interval_coverage.py`` prints the table that stands in the docstring of
``score_interval``, in half a minute; with ``--shares`` that of ``class_recall``, in two. Speakers are drawn, each
with a recall of its own for every class; the true score is that of a hundred thousand speakers. Beside the kit's
interval stands the naive one, which takes utterances as independent.
"""

import argparse
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.optimize import brentq
from scipy.special import expit, roots_hermitenorm

from serkit.evaluation.intervals import interval_limits, score_of

IEMOCAP = (110, 108, 164, 171)  # utterances of a speaker: angry, sad, happy, neutral
RAVDESS = (8, 8, 8, 4)
RECALL = (0.75, 0.75, 0.65, 0.68)
SHARES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
SPREADS = (0.0, 0.4, 0.8, 1.2)  # of speakers' log-odds
SAMPLES = (
    (10, 110, 0.3),
    (10, 8, 0.0),
    (24, 110, 0.3),
    (24, 8, 0.0),
)  # speakers, utterances of each, size_sd
POPULATION = 2000  # speakers at a time
UTTERANCES = 5531  # of IEMOCAP, where only means of speakers are drawn
SEED = 7


@dataclass(frozen=True)
class Setting:
    """One population of speakers and what is estimated from a sample of it."""

    name: str
    score: str = "ua"
    n_speakers: int = 10
    utterances: tuple = IEMOCAP  # mean for each class
    recall: tuple = RECALL  # of the median speaker
    speaker_sd: float = 0.25  # of log-odds, all classes of a speaker alike
    class_sd: float = 0.35  # of log-odds, one class of a speaker
    size_sd: float = 0.3  # of log number of utterances
    talkative: float = 0.0  # log utterances per unit of the speaker's log-odds
    speakers_per_fold: int = 0  # 0: pooled, else mean over folds
    variants: int = 1  # 2: difference of two, the second 0.1 better in log-odds


SETTINGS = (
    Setting("UA, 10 speakers (IEMOCAP)"),
    Setting("WA, the same", score="wa"),
    Setting("macro-F1, the same", score="macro_f1"),
    Setting("UA, mean over 10 speakers", speakers_per_fold=1),
    Setting("UA, mean over 5 sessions", speakers_per_fold=2),
    Setting("UA, speakers hardly differ", speaker_sd=0.05, class_sd=0.05),
    Setting("UA near 93, speakers differ", recall=(0.95, 0.93, 0.92, 0.94), speaker_sd=0.6, class_sd=0.5),
    Setting("WA, the fluent talk more", score="wa", speaker_sd=0.5, size_sd=0.5, talkative=1.0),
    Setting("UA, 24 actors (RAVDESS)", n_speakers=24, utterances=RAVDESS, class_sd=0.4, size_sd=0.0),
    Setting("UA, 5 speakers only", n_speakers=5),
    Setting("UA, difference of variants", variants=2),
)


def draw_speakers(setting, n_speakers, rng):
    """Confusion counts of ``n_speakers`` for each variant, shape (variants, speakers, truth, prediction)."""
    classes = len(setting.recall)
    odds = np.log(np.array(setting.recall) / (1 - np.array(setting.recall)))
    speaker = rng.normal(0, setting.speaker_sd, (n_speakers, 1))
    common = odds + speaker + rng.normal(0, setting.class_sd, (n_speakers, classes))
    size = rng.normal(0, setting.size_sd, (n_speakers, classes)) + setting.talkative * speaker
    n = rng.poisson(np.array(setting.utterances) * np.exp(size))
    counts = np.zeros((setting.variants, n_speakers, classes, classes), dtype=int)
    for variant in range(setting.variants):
        own = rng.normal(0.1 * variant, 0.15 if setting.variants > 1 else 0.0, (n_speakers, 1))
        right = rng.binomial(n, 1 / (1 + np.exp(-common - own)))
        for k in range(classes):
            others = [j for j in range(classes) if j != k]
            counts[variant, :, k, k] = right[:, k]
            wrong = rng.multinomial(n[:, k] - right[:, k], np.full(classes - 1, 1 / (classes - 1)))
            counts[variant][:, k, others] = wrong
    return counts


def tally_counts(counts, speakers_per_fold=0):
    """One speaker, of one seed, for each confusion matrix; ``speakers_per_fold`` neighbours make a fold, 0: one for all."""
    unit = (
        np.arange(len(counts)) // speakers_per_fold if speakers_per_fold else np.zeros(len(counts), dtype=int)
    )
    member = unit[:, None] == np.arange(unit[-1] + 1)
    return counts[:, None, None] * member[:, None, :, None, None]


def naive_limits(counts, score):
    """WA or UA plus and minus two errors, of independent utterances: each recall has the variance of a share."""
    right, true = np.einsum("skk->k", counts), counts.sum(axis=(0, 2))
    if score == "wa":
        right, true = right.sum(keepdims=True), true.sum(keepdims=True)
    share = right / true
    error = np.sqrt(np.sum(share * (1 - share) / true)) / len(share)
    return share.mean() + stats.norm.ppf([0.025, 0.975]) * error


def difference(scores):
    """The score, or the second variant's minus the first's."""
    return scores[0] if len(scores) == 1 else scores[1] - scores[0]


def true_score(setting, rng):
    """What a very large sample gives."""
    size = setting.speakers_per_fold or POPULATION
    folds = np.kron(np.eye(POPULATION // size), np.ones(size))
    values = []
    for _ in range(50):
        counts = draw_speakers(setting, POPULATION, rng)
        scores = [score_of(folds[..., None], tally_counts(variant), setting.score) for variant in counts]
        values.append(difference(scores).mean())
    return float(np.mean(values))


def coverage(setting, n_tables):
    """Share of ``n_tables`` simulated tables whose 95 % interval holds the true score: the kit's, and the naive one."""
    rng = np.random.default_rng(SEED)
    truth, hits = true_score(setting, rng), {}
    for _ in range(n_tables):
        counts = draw_speakers(setting, setting.n_speakers, rng)
        tallies = [tally_counts(variant, setting.speakers_per_fold) for variant in counts[::-1]]
        limits = interval_limits(tallies, setting.score, counts[0].sum())
        limits = {"speakers": limits[1:3]}
        if setting.score != "macro_f1" and setting.variants == 1 and not setting.speakers_per_fold:
            limits["naive"] = naive_limits(counts[0], setting.score)
        for name, (low, high) in limits.items():
            hits[name] = hits.get(name, 0) + (low <= truth <= high)
    return {name: count / n_tables for name, count in hits.items()}


def share_setting(share, spread, n_speakers, utterances, size_sd):
    """Speakers whose shares have this mean, and log-odds of this standard deviation."""
    nodes, weights = roots_hermitenorm(60)
    weights /= weights.sum()
    median = expit(brentq(lambda odds: weights @ expit(odds + spread * nodes) - share, -20, 20))
    return Setting(
        "share", "wa", n_speakers, utterances=(utterances, 0), recall=(median, 0.5), speaker_sd=spread, class_sd=0.0,
        size_sd=size_sd,
    )  # fmt: skip


def share_coverage(share, spread, sample, n_tables):
    """Share of ``n_tables`` simulated tables whose interval of a share holds the true one."""
    rng, hits = np.random.default_rng(SEED), 0
    setting = share_setting(share, spread, *sample)
    for _ in range(n_tables):
        counts = draw_speakers(setting, setting.n_speakers, rng)[0]
        _, low, high, _ = interval_limits([tally_counts(counts)], "wa", counts.sum())
        hits += low <= share <= high
    return hits / n_tables


def seed_coverage(n_seeds, seed_sd, n_tables):
    """Share of tables whose interval holds the truth, with seeds as a matter of chance and with seeds as they are.

    Ten speakers with a standard deviation of 0.03 each, of 0.02 for each pair of speaker and seed.
    """
    rng, hits = np.random.default_rng(SEED), np.zeros(2)
    for _ in range(n_tables):
        pairs = rng.normal(0, 0.02, (10, n_seeds))
        cells = 0.7 + rng.normal(0, 0.03, (10, 1)) + rng.normal(0, seed_sd, (1, n_seeds)) + pairs
        for i, values in enumerate((cells, cells.mean(axis=1, keepdims=True))):
            counts = np.stack([values, 1 - values], axis=-1)[:, :, None, None] * [[1], [0]]  # right and wrong
            _, low, high, _ = interval_limits([counts], "wa", UTTERANCES)
            hits[i] += low <= 0.7 <= high
    return hits / n_tables


def print_shares(n_tables):
    """Lowest and highest coverage over all shares, a line for each sample and a column for each spread."""
    print(f"{'speakers, utterances of each':30s}", *(f"{spread:>11.1f}" for spread in SPREADS))
    for sample in SAMPLES:
        print(f"{f'{sample[0]}, {sample[1]}':30s}", end=" ")
        for spread in SPREADS:
            held = [100 * share_coverage(share, spread, sample, n_tables) for share in SHARES]
            print(f"{min(held):5.1f}–{max(held):5.1f}", end=" ", flush=True)
        print()


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=1000)
    parser.add_argument(
        "--settings", type=int, nargs="*", default=range(len(SETTINGS)), help="by number, from 0"
    )
    parser.add_argument("--shares", action="store_true", help="intervals of shares, and no other")
    arguments = parser.parse_args()
    if arguments.shares:
        return print_shares(arguments.tables)
    names = ["speakers", "naive"]
    print(f"{'score and setting':30s}", *(f"{name:>11s}" for name in names))
    for setting in (SETTINGS[i] for i in arguments.settings):
        held = coverage(setting, arguments.tables)
        cells = (f"{100 * held[name]:11.1f}" if name in held else f"{'':11s}" for name in names)
        print(f"{setting.name:30s}", *cells, flush=True)
    print("several seeds: as a matter of chance, as they are")
    for n_seeds in (2, 3, 5):
        for seed_sd in (0.01, 0.03):
            drawn, kept = 100 * seed_coverage(n_seeds, seed_sd, arguments.tables)
            print(f"{n_seeds} seeds, sd {seed_sd}: {drawn:.1f} {kept:.1f}", flush=True)


if __name__ == "__main__":
    main()
