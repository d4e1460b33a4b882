"""Both pipelines on a tiny model: they agree with `analyze`, and their answers are plain values."""

import inspect
import json

import kinetrack
import numpy as np
import pytest
import torch
from kinetrack.configuration.configuration_kinetrack import KineTrackConfig
from kinetrack.modeling.modeling_kinetrack import KineTrackForVideoAnalysis
from kinetrack.processing.video_processing_kinetrack import KineTrackVideoProcessor
from transformers import pipeline

needs_video_processors = pytest.mark.skipif(
    "video_processor" not in inspect.signature(pipeline).parameters,
    reason="this Transformers' pipelines want an image processor for video-classification",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_backbone):
    place = tmp_path_factory.mktemp("model")
    config = KineTrackConfig(
        backbone_config=tiny_backbone,
        hidden_size=8,
        motion_channels=4,
        embedding_size=4,
        attention_window=8,
        label_groups={"fight": ["noFight", "fight"]},
        trained=True,
    )
    config.id2label = {0: "walk", 1: "run", 2: "sit"}
    config.label2id = {name: index for index, name in config.id2label.items()}
    torch.manual_seed(0)
    model = KineTrackForVideoAnalysis(config)
    with torch.no_grad():  # sees objects in many places, so that there is something to track
        model.tracking_head.heatmap.weight.mul_(3)
        model.tracking_head.heatmap.bias.zero_()
    model.save_pretrained(place)
    KineTrackVideoProcessor(size={"height": 64, "width": 96}).save_pretrained(place)
    return place


@pytest.fixture(scope="module", params=[(10, 12), (50, 25)], ids=["short", "several windows"])
def video(request, tmp_path_factory, make_video, draw_frames):
    path = tmp_path_factory.mktemp("video") / "video.mp4"
    count, rate = request.param
    make_video(path, draw_frames(count, 96, 64), frame_rate=rate)
    return path


@needs_video_processors
def test_video_classification_agrees_with_analyze(folder, video):
    answer = pipeline("video-classification", model=str(folder))(str(video), top_k=3)
    wanted = dict(kinetrack.analyze(video, model=folder, task="actions", device="cpu").actions)
    assert len(answer) == 3 and sum(item["score"] for item in answer) == pytest.approx(1)
    for item in answer:
        assert item["score"] == pytest.approx(wanted[item["label"]], abs=1e-5)


def test_video_analysis_is_what_analyze_writes(folder, video):
    found = pipeline("video-analysis", model=str(folder))(str(video))
    wanted = kinetrack.analyze(video, model=folder, device="cpu", backend="torch")
    assert len(found["tracks"]) > 0
    json.dumps(found)
    ran = ("kinetrack_version", "performance")  # what only `analyze` tells: by what and how fast
    assert found == {name: value for name, value in wanted.to_dict().items() if name not in ran}


def test_a_stream_yields_one_dictionary_a_frame(folder, video):
    analyze = pipeline("video-analysis", model=str(folder))
    frames = list(analyze(str(video), stream=True))
    assert [frame["frame_index"] for frame in frames] == list(range(len(frames))) and len(frames) >= 10
    json.dumps(frames)
    boxes = {(frame["frame_index"], track["id"]): track["box"] for frame in frames for track in frame["tracks"]}
    for track in analyze(str(video))["tracks"]:
        seen = track["observations"]
        assert [boxes[index, track["id"]] for index in seen["frame_index"]] == seen["box"]


def test_a_stream_of_several_videos_numbers_them(folder, video_path):
    analyze = pipeline("video-analysis", model=str(folder))
    frames = list(analyze([str(video_path)] * 2, stream=True))
    assert [frame["video"] for frame in frames] == [0] * 12 + [1] * 12
    assert [frame["tracks"] for frame in frames[:12]] == [frame["tracks"] for frame in frames[12:]]


@needs_video_processors
@pytest.mark.parametrize("task", ["video-classification", "video-analysis"])
def test_every_form_of_a_video_has_one_answer(task, folder, video_path, video_server, frames):
    run = pipeline(task, model=str(folder))
    answer = run(str(video_path))
    for video in (video_path, f"{video_server}/{video_path.name}", video_path.read_bytes()):
        found = run(video)
        if task == "video-analysis":
            found["source"]["name"] = answer["source"]["name"]
        assert found == answer
    in_memory = run(frames, fps=25)
    for video in (torch.from_numpy(frames), frames.transpose(0, 3, 1, 2), list(frames)):
        assert run(video, fps=25) == in_memory


@needs_video_processors
@pytest.mark.parametrize("task", ["video-classification", "video-analysis"])
def test_several_videos_give_the_answers_of_each(task, folder, video_path, frames):
    run = pipeline(task, model=str(folder))
    videos = [str(video_path), frames[:5], frames[:7, :40]]
    alone = [run(video) for video in videos]
    assert run(videos) == alone and run(videos, batch_size=2) == alone
    assert list(run(video for video in videos)) == alone
    assert run(np.stack([frames[:3], frames[:3]])) == [run(frames[:3])] * 2  # (B, T, H, W, C)


@needs_video_processors
def test_top_k_counts_primary_actions_only(folder, video_path):
    classify = pipeline("video-classification", model=str(folder))
    everything = classify(str(video_path))
    assert {item["label"] for item in everything} == {"walk", "run", "sit"}  # and nobody of the group "fight"
    assert sum(item["score"] for item in everything) == pytest.approx(1)
    assert classify(str(video_path), top_k=2) == everything[:2]
    assert pipeline("video-classification", model=str(folder), top_k=1)(str(video_path)) == everything[:1]
    found = pipeline("video-analysis", model=str(folder))(str(video_path), top_k=1)
    assert len(found["actions"]) == 1 and set(found["groups"]) == {"fight"}
    for wrong in (0, 2.5):
        with pytest.raises(ValueError, match="top_k"):
            classify(str(video_path), top_k=wrong)


@needs_video_processors
def test_options_that_would_do_nothing_are_refused(folder, video_path):
    classify = pipeline("video-classification", model=str(folder))
    for option in ({"num_frames": 8}, {"frame_sampling_rate": 2}, {"function_to_apply": "none"}):
        with pytest.raises(ValueError, match=next(iter(option))):
            classify(str(video_path), **option)


def test_a_saved_pipeline_gives_the_same(folder, video_path, tmp_path):
    analyze = pipeline("video-analysis", model=str(folder))
    analyze.save_pretrained(tmp_path / "saved")
    again = pipeline("video-analysis", model=str(tmp_path / "saved"))(str(video_path))
    wanted = analyze(str(video_path))
    assert again.pop("model") | {"name": ""} == wanted.pop("model") | {"name": ""}
    assert again == wanted


def test_bad_input_is_explained(folder, tmp_path):
    analyze = pipeline("video-analysis", model=str(folder))
    with pytest.raises(FileNotFoundError, match=r"nothing\.mp4"):
        analyze(str(tmp_path / "nothing.mp4"))
    with pytest.raises(ValueError, match="empty"):
        analyze([])


def test_an_untrained_model_is_refused_and_the_way_out_named(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text()) | {"trained": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="allow_untrained"):
        pipeline("video-analysis", model=str(tmp_path))
    assert pipeline("video-analysis", model=str(tmp_path), allow_untrained=True).task == "video-analysis"
