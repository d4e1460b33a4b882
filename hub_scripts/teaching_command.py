"""The command line of scripts that teach a trained model one more thing."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from .data.splits import SPLITS_DIR


def teach_from_command_line(description: str, settings, teach: Callable, record: str) -> None:
    """Reads the arguments, teaches, and saves the model with what was found.

    Args:
        description: of the script.
        settings: a dataclass's defaults; every field is an option.
        teach: called with model, data, the settings and the folder of split lists; gives model, processor and findings.
        record: name of the file of settings and findings in the output folder.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder, name or Hub id of a trained model")
    parser.add_argument("--data", required=True, help="data root that holds actions/")
    parser.add_argument("--output", required=True, type=Path, help="folder for the new model")
    parser.add_argument("--splits", type=Path, default=SPLITS_DIR, help="folder of val.txt and dev.txt, if not our own")
    for name, value in asdict(settings).items():
        kind = {"action": "store_true"} if isinstance(value, bool) else {"type": type(value)}
        parser.add_argument(f"--{name.replace('_', '-')}", default=value, help=f"default: {value}", **kind)
    arguments = vars(parser.parse_args())
    output, splits, *given = (arguments.pop(name) for name in ("output", "splits", "model", "data"))
    model, processor, found = teach(*given, type(settings)(**arguments), splits)
    model.save_pretrained(output)
    processor.save_pretrained(output)
    (output / record).write_text(json.dumps(arguments | found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
