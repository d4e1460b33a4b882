"""`analyze` from end to end with a tiny model: what comes out, and what happens with what people really bring."""

import gc
import io
import json
import sys
import weakref
from pathlib import Path

import av
import kinetrack
import numpy as np
import pytest
from kinetrack.processing.analyze import analyze, analyze_videos, plan_folders, source_stem
from kinetrack.processing.container_kinetrack import VideoDecodeError
from kinetrack.processing.loading import load_model

FILES = ["analysis.json", "annotated.mp4", "summary.png", "tracks.txt"]


@pytest.fixture(scope="module")
def model(model_folder):
    return load_model(model_folder, "cpu")


@pytest.fixture(scope="module")
def analysis(model, long_video_path, tmp_path_factory):
    """Of three seconds with sound, all files written."""
    return analyze(long_video_path, model, output=tmp_path_factory.mktemp("results"), threshold=0.3)


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def decode(path) -> list[av.VideoFrame]:
    with av.open(str(path)) as video:
        return list(video.decode(video=0))


def test_three_lines_of_python(model_folder, video_path, tmp_path):
    result = kinetrack.analyze(str(video_path), model=str(model_folder), output=tmp_path, device="cpu")
    assert result.output == tmp_path / "plain"
    assert sorted(path.name for path in result.output.iterdir()) == FILES


def test_every_frame_is_analysed_and_described(analysis):
    assert analysis.frame_indices.tolist() == list(range(75))
    np.testing.assert_allclose(analysis.times, np.arange(75) / 25, atol=1e-3)
    assert (analysis.source["width"], analysis.source["height"]) == (160, 96)
    assert len(analysis.tracks) > 0 and analysis.clip_actions
    assert set(analysis.performance["milliseconds"]) >= {"decode", "preprocess", "model", "association", "output"}


def test_annotated_video_has_length_times_and_sound_of_the_source(analysis, long_video_path):
    written, source = decode(analysis.output / "annotated.mp4"), decode(long_video_path)
    assert [round(f.time, 3) for f in written] == [round(f.time, 3) for f in source]
    with av.open(str(analysis.output / "annotated.mp4")) as video:
        assert video.streams.audio[0].codec_context.name == "aac"
    pictures = [frames[40].to_ndarray(format="rgb24").astype(int) for frames in (written, source)]
    assert (np.abs(pictures[0] - pictures[1]).max(-1) > 60).mean() > 0.02  # something is drawn


def test_files_agree_with_each_other(analysis):
    content = json.loads((analysis.output / "analysis.json").read_text(encoding="utf-8"))
    lines = [line.split(",") for line in (analysis.output / "tracks.txt").read_text().splitlines()]
    assert len(lines) == sum(track["frames"] for track in content["tracks"]) == len(analysis.to_pandas())
    first = content["tracks"][0]["observations"]
    line = next(line for line in lines if int(line[1]) == content["tracks"][0]["id"])
    assert int(line[0]) == first["frame_index"][0] + 1
    x1, y1, x2, y2 = first["box"][0]
    np.testing.assert_allclose([float(value) for value in line[2:6]], [x1, y1, x2 - x1, y2 - y1], atol=0.011)


def test_no_path_of_the_machine_is_written(analysis, long_video_path):
    text = (analysis.output / "analysis.json").read_text(encoding="utf-8")
    assert str(long_video_path.parent) not in text and '"long.mp4"' in text and '"name": "tiny"' in text


def test_fps_takes_fewer_frames_at_their_own_times_and_source_numbers(model, long_video_path, tmp_path):
    result = analyze(long_video_path, model, fps=5, output=tmp_path, threshold=0.3)
    assert result.frame_indices.tolist() == list(range(0, 75, 5))
    np.testing.assert_allclose([f.time for f in decode(result.output / "annotated.mp4")], result.times, atol=1e-3)
    numbers = {int(line.split(",")[0]) for line in result.to_mot().splitlines()}
    assert numbers and numbers <= set(range(1, 76, 5))


def test_variable_rate_is_kept(model, variable_rate_video_path, tmp_path):
    result = analyze(variable_rate_video_path, model, output=tmp_path)
    written = [frame.time for frame in decode(result.output / "annotated.mp4")]
    np.testing.assert_allclose(written, result.times, atol=1e-3)
    assert len(set(np.round(np.diff(written), 3))) > 1


@pytest.mark.parametrize("task", ["tracking", "actions"])
def test_one_task_alone(model, video_path, tmp_path, task):
    result = analyze(video_path, model, task=task, output=tmp_path, threshold=0.3)
    assert bool(result.tracks) == (task == "tracking")
    assert (result.action is None) == (task == "tracking")
    assert sorted(path.name for path in result.output.iterdir()) == FILES


def test_no_video_writes_the_other_files_and_removes_a_stale_video(model, video_path, tmp_path):
    analyze(video_path, model, output=tmp_path)
    analyze(video_path, model, output=tmp_path, video=False)
    assert sorted(path.name for path in (tmp_path / "plain").iterdir()) == [n for n in FILES if n != "annotated.mp4"]


def test_without_output_nothing_is_written(model, video_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert analyze(video_path, model).output is None
    assert listing(tmp_path) == []


def test_frames_are_not_kept(model, draw_frames):
    alive = []

    def stream():
        for frame in draw_frames(40):
            frame = frame.copy()
            alive.append(weakref.ref(frame))
            yield frame

    result = analyze(stream(), model)
    gc.collect()
    assert len(result.times) == 40
    assert sum(reference() is not None for reference in alive) <= 1


@pytest.mark.parametrize("kind", ["bytes", "file", "array", "list", "pil", "generator", "channels_first"])
def test_sources_of_every_kind_give_the_same_tracks(model, kind, tmp_path, frames, make_video):
    from PIL import Image

    path = make_video(tmp_path / "in.mkv", frames, codec="ffv1", pixel_format="bgr0")
    expected = analyze(path, model, threshold=0.3)
    source = {
        "bytes": path.read_bytes,
        "file": lambda: io.BytesIO(path.read_bytes()),
        "array": lambda: frames,
        "list": lambda: list(frames),
        "pil": lambda: [Image.fromarray(frame) for frame in frames],
        "generator": lambda: iter(frames),
        "channels_first": lambda: frames.transpose(0, 3, 1, 2),
    }[kind]()
    found = analyze(source, model, threshold=0.3)
    np.testing.assert_allclose(found.observations.boxes, expected.observations.boxes, atol=0.02)
    assert found.to_mot().count("\n") == expected.to_mot().count("\n") > 0


def test_a_file_object_gives_sound_too(model, sound_video_path, tmp_path):
    with open(sound_video_path, "rb") as file:
        result = analyze(file, model, output=tmp_path)
    assert result.output.name == "sound"
    with av.open(str(result.output / "annotated.mp4")) as video:
        assert video.streams.audio


def test_gray_and_rgba_frames_are_read_as_colour(model, frames):
    gray = frames.mean(-1).astype(np.uint8)
    rgba = np.concatenate([frames, np.full((*frames.shape[:3], 1), 255, np.uint8)], axis=-1)
    assert analyze(gray[..., None], model).source["width"] == analyze(list(gray), model).source["width"] == 96
    same = analyze(rgba, model, threshold=0.3)
    np.testing.assert_array_equal(same.observations.boxes, analyze(frames, model, threshold=0.3).observations.boxes)


def test_gray_and_odd_sized_files(model, gray_video_path, odd_size_video_path, tmp_path):
    assert len(analyze(gray_video_path, model, output=tmp_path).times) == 12
    odd = analyze(odd_size_video_path, model, output=tmp_path)
    assert (odd.source["width"], odd.source["height"]) == (97, 63)
    frame = decode(odd.output / "annotated.mp4")[0]
    assert (frame.width, frame.height) == (98, 64)


def test_rotated_video_is_analysed_as_displayed(model, rotated_video_path, tmp_path):
    result = analyze(rotated_video_path, model, output=tmp_path)
    frame = decode(result.output / "annotated.mp4")[0]
    assert (frame.width, frame.height) == (result.source["width"], result.source["height"]) == (64, 96)


def test_a_nan_frame_is_an_error_and_leaves_nothing(model, frames, tmp_path):
    broken = frames.astype(np.float32) / 255
    broken[7, 3, 3] = np.nan
    with pytest.raises(ValueError, match="(?i)nan|finite"):
        analyze(broken, model, output=tmp_path)
    assert listing(tmp_path) == []


def test_corrupt_packets_in_the_middle_are_skipped(model, damaged_video_path, tmp_path):
    result = analyze(damaged_video_path, model, output=tmp_path)
    assert 20 < len(result.times) <= 40
    assert len(decode(result.output / "annotated.mp4")) == len(result.times)


def test_damage_is_logged_once_or_told_to_whoever_listens(model, make_video, draw_frames, tmp_path, caplog):
    path = make_video(tmp_path / "early.mkv", draw_frames(60))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    events = []
    assert 5 < len(analyze(path, model, on_event=events.append).times) < 60
    assert [event.kind for event in events if event.kind != "connected"] == ["damaged"] and not caplog.records
    analyze(path, model)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["early.mkv"]


@pytest.mark.parametrize(
    ("fixture", "error"),
    [
        ("empty_video_path", VideoDecodeError),
        ("zero_frames_video_path", VideoDecodeError),
        ("corrupt_video_path", VideoDecodeError),
        ("truncated_video_path", VideoDecodeError),
        ("audio_only_path", VideoDecodeError),
        ("video_folder", VideoDecodeError),
    ],
)
def test_unreadable_sources_are_clear_errors_and_leave_nothing(model, fixture, error, request, tmp_path):
    source = request.getfixturevalue(fixture)
    with pytest.raises(error, match=Path(source).name):
        analyze(source, model, output=tmp_path)
    assert listing(tmp_path) == []


def test_missing_file(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.mp4"):
        analyze(tmp_path / "nowhere.mp4", model, output=tmp_path / "out")
    assert listing(tmp_path) == []


@pytest.mark.parametrize("nothing", [[], iter([]), np.zeros((0, 8, 8, 3), np.uint8), b""])
def test_no_frames_at_all(model, nothing):
    with pytest.raises(ValueError, match="(?i)empty|no frames|0 bytes|no picture"):
        analyze(nothing, model)


def test_two_videos_where_one_is_expected(model, video_path):
    with pytest.raises(ValueError, match="one video, got 2"):
        analyze([str(video_path), str(video_path)], model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "dance"}, "task"),
        ({"fps": 0}, "fps"),
        ({"fps": -3.0}, "fps"),
        ({"threshold": 1.5}, "threshold"),
        ({"size": (100, 100)}, "multiples of 32"),
    ],
)
def test_options_out_of_range_name_the_option(model, video_path, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        analyze(video_path, model, output=tmp_path, **options)
    assert listing(tmp_path) == []


def test_output_that_cannot_be_written(model, video_path, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OSError, match="--output"):
        analyze(video_path, model, output=tmp_path / "taken")
    (tmp_path / "out" / "plain" / "tracks.txt").mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match="tracks.txt"):
        analyze(video_path, model, output=tmp_path / "out")
    assert listing(tmp_path / "out") == ["plain", "plain/tracks.txt"]


def test_cancelling_leaves_the_earlier_results_as_they_were(model, long_video_path, tmp_path):
    analyze(long_video_path, model, output=tmp_path)
    before = {name: (tmp_path / "long" / name).read_bytes() for name in FILES}

    def cancel(done, total):
        assert total == 75
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        analyze(long_video_path, model, output=tmp_path, progress=cancel)
    assert {path.name: path.read_bytes() for path in (tmp_path / "long").iterdir()} == before


def test_missing_pyav_says_what_to_install(model, video_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(ImportError, match="pip install"):
        analyze(video_path, model)


def test_box_wholly_outside_the_frame_is_survived(model, video_path, tmp_path, monkeypatch):
    from kinetrack.processing import session_kinetrack

    real = session_kinetrack.decode_detections

    def displaced(*arguments, **options):
        found = real(*arguments, **options)
        for one in found:
            one["boxes"] = one["boxes"] + 5000
        return found

    monkeypatch.setattr(session_kinetrack, "decode_detections", displaced)
    result = analyze(video_path, model, output=tmp_path, threshold=0.3)
    assert len(result.observations.boxes) and result.observations.boxes.min() > 1000
    assert sorted(path.name for path in result.output.iterdir()) == FILES
    assert np.isfinite([track.confidence for track in result.tracks]).all()


def test_untrained_model_is_refused_and_the_option_named(untrained_model_folder, video_path):
    with pytest.raises(ValueError, match="allow_untrained=True"):
        analyze(video_path, untrained_model_folder, device="cpu")
    result = analyze(video_path, untrained_model_folder, device="cpu", allow_untrained=True)
    assert result.model["trained"] is False


@pytest.mark.parametrize("name", ["no-such-model", "./no/such/folder", "/no/such/folder"])
def test_wrong_model_path(video_path, name):
    with pytest.raises(FileNotFoundError, match="no-such-model|no/such/folder"):
        analyze(video_path, name)


def test_folders_that_are_not_complete_models(video_path, tmp_path, model_folder):
    with pytest.raises(FileNotFoundError, match="config.json"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_bytes((model_folder / "config.json").read_bytes())
    with pytest.raises(FileNotFoundError, match="video_preprocessor_config.json"):
        load_model(tmp_path)
    processor = "video_preprocessor_config.json"
    (tmp_path / processor).write_bytes((model_folder / processor).read_bytes())
    with pytest.raises(FileNotFoundError, match="incomplete"):
        load_model(tmp_path)
    with pytest.raises(FileNotFoundError, match="is a file"):
        load_model(tmp_path / "config.json")


def test_a_model_of_another_kind_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
    (tmp_path / "video_preprocessor_config.json").write_text("{}")
    with pytest.raises(ValueError, match="'resnet'.*'kinetrack'"):
        load_model(tmp_path)


def test_weights_that_lack_something_are_refused(tmp_path, model_folder):
    from safetensors.torch import load_file, save_file

    for file in model_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop(next(name for name in weights if "tracking_head" in name))
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lack 1 tensors.*tracking_head"):
        load_model(tmp_path)


def test_a_model_with_one_head_loads_and_names_the_missing_one(tmp_path, model_folder, video_path):
    model, processor = load_model(model_folder, "cpu")
    classifier = kinetrack.KineTrackForVideoClassification.from_pretrained(model_folder)
    classifier.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert analyze(video_path, tmp_path, task="actions", device="cpu").action is not None
    with pytest.raises(ValueError, match="tracking head"):
        analyze(video_path, tmp_path, task="both", device="cpu")


def test_a_device_that_is_not_there(model_folder):
    with pytest.raises(ValueError, match="'nonsense'"):
        load_model(model_folder, "nonsense")


def test_one_broken_video_does_not_stop_the_others(model, video_path, corrupt_video_path, tmp_path):
    outcomes = list(analyze_videos([video_path, corrupt_video_path, video_path], tmp_path, model))
    assert [outcome.error is None for outcome in outcomes] == [True, False, True]
    assert isinstance(outcomes[1].error, VideoDecodeError)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain", "plain-2"]


def test_same_names_get_folders_of_their_own():
    folders = plan_folders(["a/cam.mp4", "b/CAM.mov", "c/cam-2.mp4", "d/cam.avi", "e/other.mp4"], "out")
    assert [folder.as_posix() for folder in folders] == ["out/cam", "out/CAM-3", "out/cam-2", "out/cam-4", "out/other"]


@pytest.mark.parametrize(
    ("source", "stem"),
    [
        ("dir/my film.mp4", "my film"),
        ("archive.tar.mkv", "archive.tar"),
        ("https://example.org/videos/game%201.mp4?token=secret", "game 1"),
        ("https://example.org/", "video"),
        ("https://example.org/x/..%2f..%2fetc%2fpasswd", "passwd"),
        ("https://example.org/%2e%2e", "video"),
        ("https://example.org/..%5c..%5cevil.mp4", "evil"),
        (b"\x00\x01", "video"),
        (Path("x/ü.webm"), "ü"),
    ],
)
def test_folder_names_come_from_file_names_and_stay_inside(source, stem):
    assert source_stem(source) == stem


def test_size_and_threshold_reach_the_session(model, video_path):
    result = analyze(video_path, model, size=(32, 64), threshold=0.9)
    assert result.settings["size"] == [32, 64] and result.settings["threshold"] == 0.9
    assert len(result.observations.scores) == 0 or result.observations.scores.max() >= 0.9


def test_on_result_sees_every_frame_and_can_cancel(video_path, model_folder, tmp_path):
    seen = []
    analysis = analyze(video_path, model=model_folder, on_result=seen.append)
    assert [result.frame_index for result in seen] == analysis.frame_indices.tolist()
    assert all(result.spatial_attention.sum() == pytest.approx(1, abs=1e-3) for result in seen)

    def cancel(result):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        analyze(video_path, model=model_folder, output=tmp_path, on_result=cancel)
    assert not list(tmp_path.iterdir())
