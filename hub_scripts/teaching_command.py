"""The command line of scripts that teach a trained model one more thing."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from .data.splits import SPLITS_DIR
from .train_checkpoint import write_model


def teach_from_command_line(description: str, settings, teach: Callable, record: str) -> None:
    """Reads the arguments, teaches, and saves the model with what was found, whole or not at all.

    Args:
        description: of the script.
        settings: a dataclass's defaults; every field is an option.
        teach: called with model, data, the settings and the folder of split lists; gives model, processor and findings.
        record: name of the file of settings and findings in the output folder.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder, name or Hub id of a trained model")
    parser.add_argument("--data", required=True, help="data root that holds actions/")
    parser.add_argument("--output", required=True, type=Path, help="new folder for the new model")
    parser.add_argument("--splits", type=Path, default=SPLITS_DIR, help="folder of val.txt and dev.txt, if not our own")
    for name, value in asdict(settings).items():
        kind = {"action": "store_true"} if isinstance(value, bool) else {"type": type(value)}
        parser.add_argument(f"--{name.replace('_', '-')}", default=value, help=f"default: {value}", **kind)
    arguments = vars(parser.parse_args())
    if arguments["output"].exists():
        parser.error(f"{arguments['output']} is there already. Give another --output.")
    output, splits, *given = (arguments.pop(name) for name in ("output", "splits", "model", "data"))
    model, processor, found = teach(*given, type(settings)(**arguments), splits)
    write_model(output, model, processor, {record: arguments | found})
    print(json.dumps(found, indent=2))
