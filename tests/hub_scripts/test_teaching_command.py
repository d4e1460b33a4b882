"""The command line of scripts that teach: what is there stays, and what is new comes whole or not at all."""

import json
from dataclasses import dataclass

import pytest
from kinetrack.hub_scripts.teaching_command import teach_from_command_line


@dataclass
class Settings:
    passes: int = 2


class Saved:
    """What can be saved, or, if it is broken, only in part."""

    def __init__(self, name, broken=False):
        self.name, self.broken = name, broken

    def save_pretrained(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / self.name).write_text("saved")
        if self.broken:
            raise OSError("No space left on device")


@pytest.fixture
def command(tmp_path, monkeypatch):
    output = tmp_path / "new" / "model"
    monkeypatch.setattr("sys.argv", ["teach", "old", "--data", "DATA", "--output", str(output), "--passes", "3"])
    return output


def test_model_settings_and_findings_are_saved(command):
    def teach(model, data, settings, splits):
        assert (model, data, settings) == ("old", "DATA", Settings(3))
        return Saved("model"), Saved("processor"), {"top1": 0.5}

    teach_from_command_line("Teaches.", Settings(), teach, "found.json")
    assert sorted(path.name for path in command.iterdir()) == ["found.json", "model", "processor"]
    assert json.loads((command / "found.json").read_text()) == {"passes": 3, "top1": 0.5}


def test_what_is_there_is_refused_before_anything_is_learned(command, capsys):
    command.mkdir(parents=True)
    with pytest.raises(SystemExit):
        teach_from_command_line("Teaches.", Settings(), lambda *_: pytest.fail("It learned."), "found.json")
    assert f"{command} is there already" in capsys.readouterr().err


def test_half_a_model_is_never_seen(command):
    with pytest.raises(OSError, match="No space"):
        teach_from_command_line("Teaches.", Settings(), lambda *_: (Saved("a"), Saved("b", True), {}), "found.json")
    assert not command.exists()
