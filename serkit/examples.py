"""A finished run as one small file of predictions, and the run folders that a notebook reads made from it again.

The file has neither models nor sounds. Probabilities have four digits, and those of every epoch are there for one
variant only.
"""

import json

import pandas as pd

from serkit import runs
from serkit.constants import LABELS
from serkit.errors import RunError
from serkit.experiment import key_of, project_home
from serkit.files import replacing

PACKED = "data/examples/ravdess_whisper.parquet"
MARK = "unpacked.txt"  # in the run's folder: SHA-256 of the file that it was made from
UNIT = ["variant", "seed", "fold"]
NAMED = [*UNIT[::2], "utterance_id", "speaker", "session", "truth", "prediction", "split"]
SHARES = [f"p_{label}" for label in LABELS]
STEPS = 10_000  # a probability is kept as so many parts of one; the last class has what the others leave
RECORD = ("folds", "versions", "device", "machine", "commit")  # kept of experiment.json


def pack(run, path, every_epoch_of=""):
    """Write the predictions of a run into one file: of each variant the seeds whose folds have all finished.

    Parameters
    ----------
    run : str
    path : path
    every_epoch_of : str, optional
        Variant whose predictions after every epoch are written too.

    Returns
    -------
    pd.DataFrame
        ``variant, seed`` and number of ``folds`` of what was written.

    Raises
    ------
    RunError
        If no seed of any variant has finished, or folds of a variant differ in a setting.
    """
    parts, records, written = [], {}, []
    for folder in runs.finished_folders(run):
        record, variant = runs.read_record(folder), runs.variant_of(folder)
        finished = runs.find_folds(run, variant)
        alike = [other for other in finished if other.name == folder.name]  # of the same seed
        if len(alike) < len(runs.planned_folds(run, variant) or alike):
            continue
        parameters = runs.shared_parameters(run, variant)
        if parameters["speech_encoder"]:  # where it lay on that machine says nothing here
            parameters["speech_encoder"] = parameters["speech_encoder"].rpartition("/")[2]
        records[variant] = {"parameters": parameters} | {name: record.get(name) for name in RECORD}
        written.append({"variant": variant, "seed": record["parameters"]["seed"]})
        parts.append(runs.read_predictions(folder).assign(epoch=0))
        if variant == every_epoch_of:
            parts.append(runs.read_table(folder / runs.EPOCHS, runs.FOLD_CURE))
    if not parts:
        raise RunError(f"run {run!r}: no seed has all its folds yet, expected one; call again when it has")
    table = pd.concat(parts, ignore_index=True).sort_values([*UNIT, "split", "utterance_id", "epoch"])
    table[SHARES] = (STEPS * table[SHARES]).round().astype("uint16")
    table = table.astype(dict.fromkeys(NAMED, "category") | {"epoch": "uint8"}).drop(columns=SHARES[-1])
    table.attrs = {"records": json.dumps(records)}
    with replacing(path) as partial:
        table.to_parquet(partial, index=False, compression="zstd", compression_level=19)
    return pd.DataFrame(written).value_counts(sort=False).rename("folds").reset_index()


def unpack():
    """Make the folders of the run :data:`serkit.runs.EXAMPLE`, unless they come from the present file already."""
    packed, target = project_home() / PACKED, project_home() / "runs" / runs.EXAMPLE
    if not packed.is_file():
        return
    digest, mark = runs.sha256_of(packed), target / MARK
    if mark.is_file() and mark.read_text() == digest:
        return
    table = pd.read_parquet(packed)
    records = json.loads(table.attrs.pop("records"))
    table = table.astype(dict.fromkeys(NAMED, str) | {"epoch": int})
    shares = table[SHARES[:-1]].astype(int)
    table.insert(table.columns.get_loc(SHARES[-2]) + 1, SHARES[-1], 0.0)
    table[SHARES] = shares.assign(rest=(STEPS - shares.sum(axis=1)).clip(lower=0)).to_numpy() / STEPS
    for (variant, seed, fold), rows in table.groupby(UNIT):
        folder = target / variant / f"fold={fold}" / f"seed={seed}"
        parameters = records[variant]["parameters"] | {"fold": fold, "seed": seed}
        record = {"key": key_of(parameters)} | records[variant] | {"parameters": parameters}
        runs.write_json(folder / "experiment.json", record)
        every_epoch = rows[rows["epoch"] > 0]
        rows[rows["epoch"] == 0].drop(columns="epoch").to_parquet(folder / "predictions.parquet", index=False)
        if len(every_epoch):
            every_epoch.to_parquet(folder / runs.EPOCHS, index=False)
        (folder / runs.DONE).write_text(record["key"])
    mark.write_text(digest)
