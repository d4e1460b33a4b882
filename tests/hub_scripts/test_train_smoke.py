"""A run from made-up data to scores: train a few steps, go on where it stopped, evaluate (`make train-smoke`)."""

import json

import numpy as np
import pytest
import torch
from kinetrack.hub_scripts.data.splits import parse_item, read_split
from kinetrack.hub_scripts.evaluate import evaluate
from kinetrack.hub_scripts.train import train
from kinetrack.hub_scripts.train_config import DataSettings, ModelSettings, StreamSettings, TrainConfig
from kinetrack.hub_scripts.train_data import training_streams

pytestmark = pytest.mark.train_smoke


def walker_frames(num_frames: int, direction: int) -> tuple[np.ndarray, np.ndarray]:
    """(T, 64, 96, 3) uint8 frames of one dark walker on grey, and its boxes (T, 4): left, top, width, height."""
    frames = np.full((num_frames, 64, 96, 3), 150, np.uint8)
    lefts = 40 + direction * 2 * np.arange(num_frames)
    for frame, left in zip(frames, lefts, strict=True):
        frame[16:52, left : left + 16] = (40, 40, 90)
    boxes = np.column_stack([lefts, np.full(num_frames, 16), np.full(num_frames, 16), np.full(num_frames, 36)])
    return frames, boxes


def mot_lines(boxes: np.ndarray, identity: int = 1) -> str:
    return "".join(f"{n},{identity},{x},{y},{w},{h},1,-1,-1,-1\n" for n, (x, y, w, h) in enumerate(boxes, start=1))


@pytest.fixture(scope="module")
def data_root(tmp_path_factory, make_video):
    """One MOT sequence and three clips of two actions, one of which the dev list names."""
    root = tmp_path_factory.mktemp("data")
    frames, boxes = walker_frames(12, 1)
    sequence = root / "mot" / "train" / "WALKER"
    (sequence / "gt").mkdir(parents=True)
    make_video(sequence / "video.mp4", frames)
    (sequence / "gt" / "gt.txt").write_text(mot_lines(boxes))
    (sequence / "seqinfo.ini").write_text(
        "[Sequence]\nname=WALKER\nimDir=img1\nframeRate=25\nseqLength=12\nimWidth=96\nimHeight=64\nimExt=.jpg\n"
    )
    held_out = next(parse_item(item)[0] for item in read_split("dev") if "/jhmdb/" in item)
    for direction, name in (
        (1, held_out),
        (1, "actions/jhmdb/train/to_the_right/a.mp4"),
        (-1, "actions/jhmdb/train/to_the_left/b.mp4"),
    ):
        frames, boxes = walker_frames(12, direction)
        clip = root / name
        clip.parent.mkdir(parents=True, exist_ok=True)
        make_video(clip, frames)
        actor = root / name.replace("/train/", "/train_boxes/").replace(".mp4", ".txt")
        actor.parent.mkdir(parents=True, exist_ok=True)
        actor.write_text("".join(f"{n},1,{x},{y},{w},{h},1,1,1\n" for n, (x, y, w, h) in enumerate(boxes, start=1)))
    return root


def settings_for(data_root, output, steps: int) -> TrainConfig:
    stream = StreamSettings(batch_size=1, num_frames=8, size=(64, 96))
    return TrainConfig(
        output=str(output),
        steps=steps,
        warmup_steps=1,
        log_every=1,
        model=ModelSettings(config={"hidden_size": 16, "embedding_size": 8}),
        data=DataSettings(str(data_root), str(output / "cache"), workers=0, tracking=stream, actions=stream),
    )


def test_clips_take_the_models_normalisation(data_root, tmp_path):
    settings = settings_for(data_root, tmp_path, steps=1)
    batches = []
    for mean, std in (((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))):
        streams = training_streams(settings)
        streams.normalise(mean, std)
        for batch in next(iter(streams.steps(0, 1))):
            shown = batch["pixel_mask"][:, None, None] & batch["frame_mask"][:, :, None, None, None]
            scale, shift = (torch.tensor(value)[:, None, None] for value in (std, mean))
            batches.append((batch["pixel_values_videos"] * scale + shift) * shown)
    for first, second in zip(batches[:2], batches[2:], strict=True):
        assert first.std() > 0.01
        torch.testing.assert_close(first, second, rtol=0, atol=1e-5)


def test_train_resume_evaluate(data_root, tmp_path):
    output = tmp_path / "run"
    train(settings_for(data_root, output, steps=2))
    model = train(settings_for(data_root, output, steps=3))

    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log if "grad_norm" in record] == [1, 2, 3]
    assert all(np.isfinite(value) for record in log for value in record.values())
    assert any("dev_top1" in record for record in log)
    assert json.loads((model / "config.json").read_text())["trained"] is True
    assert (model / "model.safetensors").is_file() and (model / "video_preprocessor_config.json").is_file()

    report = evaluate(str(model), data_root, output=tmp_path / "scores", size=(64, 96))
    assert "MOTA" in report["tracking"]["COMBINED"]
    assert report["actions"]["actions"]
    assert (tmp_path / "scores" / "evaluation.json").is_file()
