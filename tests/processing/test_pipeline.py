"""Both pipelines on a tiny model: they agree with `analyze`, and their answers are plain values."""

import inspect
import json

import kinetrack
import pytest
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
        trained=True,
    )
    config.id2label = {0: "walk", 1: "run", 2: "sit"}
    config.label2id = {name: index for index, name in config.id2label.items()}
    KineTrackForVideoAnalysis(config).save_pretrained(place)
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
    wanted = kinetrack.analyze(video, model=folder, device="cpu")
    json.dumps(found)
    assert [track["id"] for track in found["tracks"]] == [track.id for track in wanted.tracks]
    assert found["action"] == wanted.action


def test_a_stream_yields_one_dictionary_a_frame(folder, video):
    analyze = pipeline("video-analysis", model=str(folder))
    frames = list(analyze(str(video), stream=True))
    assert [frame["frame_index"] for frame in frames] == list(range(len(frames))) and len(frames) >= 10
    json.dumps(frames)


@needs_video_processors
def test_several_videos_give_several_answers(folder, video):
    assert len(pipeline("video-classification", model=str(folder))([str(video)] * 2)) == 2


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
