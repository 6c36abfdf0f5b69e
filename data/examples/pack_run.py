"""Write the predictions of a run into one file, as ``ravdess_whisper.parquet`` here: neither models nor sounds.

``python data/examples/pack_run.py RUN [VARIANT]`` takes of each variant the seeds whose folds have all finished; of
VARIANT the predictions after every epoch too. Probabilities keep four digits.
"""

import json
import sys

import pandas as pd

from serkit import runs
from serkit.errors import RunError
from serkit.experiment import project_home
from serkit.files import replacing
from serkit.metrics import PROBABILITY

ORDER = ["variant", "seed", "fold", "split", "utterance_id", "epoch"]
RECORD = ("folds", "versions", "device", "machine", "commit")  # kept of experiment.json


def pack(run, path, every_epoch_of=""):
    """Write a run into ``path``.

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
    table = pd.concat(parts, ignore_index=True).sort_values(ORDER)
    table = table.round({name: 4 for name in table if name.startswith(PROBABILITY)})
    table.attrs = {"records": json.dumps(records)}
    with replacing(path) as partial:
        table.to_parquet(partial, index=False, compression="zstd", compression_level=19)
    return pd.DataFrame(written).value_counts(sort=False).rename("folds").reset_index()


if __name__ == "__main__":
    target = project_home() / "data" / "examples" / f"{sys.argv[1]}.parquet"
    print(pack(sys.argv[1], target, *sys.argv[2:3]).to_string(index=False))
    print(f"written: {target}")
