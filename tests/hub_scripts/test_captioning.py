"""Tokens are what the heads read, a captioner learns from them and from nothing else, and one's own pairs train one."""

import dataclasses
import random
import signal
import time

import numpy as np
import pytest
import torch
from kinetrack.hub_scripts.captioning.caption_checkpoint import CaptionCheckpoint, training_key
from kinetrack.hub_scripts.captioning.caption_training import CaptionedVideo, mean_loss, train_captioner
from kinetrack.hub_scripts.captioning.captioner import (
    VideoCaptioner,
    VideoCaptionerConfig,
    answer,
    encode_texts,
    make_tokenizer,
)
from kinetrack.hub_scripts.captioning.pairs import read_pairs, split_pairs
from kinetrack.hub_scripts.captioning.train_pairs import load_captioner
from kinetrack.hub_scripts.captioning.video_tokens import MAX_FRAMES, PLACES, TokenCache, TokenSession, VideoTokens
from kinetrack.hub_scripts.cli import app
from kinetrack.hub_scripts.train_config import CaptionSettings
from kinetrack.processing.decoding_kinetrack import VideoFrame
from kinetrack.processing.loading import load_model
from typer.testing import CliRunner

DOES, WHERE = "what does it do?", "where is it?"
SETTINGS = CaptionSettings(steps=150, batch_size=16, texts=3, learning_rate=1e-2)


@pytest.fixture(scope="module")
def session(model_folder):
    return TokenSession(*load_model(model_folder, "cpu"), threshold=0.01)


def ticking(frames, rate):
    return [VideoFrame(image, number / rate, number) for number, image in enumerate(frames)]


def test_a_frames_token_is_f_of_equation_4(session, frames):
    model, processor = session.model, session.processor
    rate = model.config.frame_rate
    tokens = session.watch(ticking(frames, rate))
    canvas = processor.fit_size(*frames.shape[1:3])
    pixels = torch.cat([processor.preprocess_frame(image, canvas) for image in frames], dim=1)  # (1, T, 3, H, W)
    with torch.no_grad():
        clip = model(pixels, pixel_mask=session._pixel_mask)
    f = torch.einsum("bthw,btdhw->btd", clip.spatial_attention, clip.last_hidden_state)[0]
    assert tokens.frames.shape == (len(frames), model.config.hidden_size)
    assert np.allclose(tokens.frames, f.numpy(), atol=5e-3)


def test_a_tracks_token_is_what_the_action_head_reads(session, frames):
    results = []
    session.reset()
    tokens = session.watch(_watched(session, ticking(frames, session.model.config.frame_rate), results))
    assert len(tokens.tracks) and tokens.places.shape == (len(tokens.tracks), len(PLACES))
    lasting = {identity: len(results) for identity in results[-1].track_ids.tolist()}
    always = [i for i in lasting if all(i in result.track_ids for result in results)]
    with torch.no_grad():
        logits, _ = session.model.action_head(torch.from_numpy(tokens.tracks.astype(np.float32)))
    said = (logits / session.model.config.action_temperature).softmax(-1).numpy()
    for identity in always:
        wanted = results[-1].actions[results[-1].track_ids.tolist().index(identity)]
        assert np.abs(said - wanted).max(1).min() < 5e-3


def _watched(session, frames, results):
    """Passes frames on and keeps what the session says of them."""
    look = session.look

    def keep(frame):
        results.append(look(frame))
        return results[-1]

    session.look = keep
    yield from frames
    del session.look


def test_long_videos_have_no_more_tokens(session, frames):
    long = np.concatenate([frames] * (MAX_FRAMES // len(frames) + 2))
    assert len(session.watch(ticking(long, session.model.config.frame_rate)).frames) == MAX_FRAMES


def test_tokens_are_made_once(session, video_path, tmp_path, monkeypatch):
    cache = TokenCache(session, tmp_path)
    first = cache.read_file(video_path)
    monkeypatch.setattr(session, "watch", lambda source: pytest.fail("watched again"))
    again = cache.read_file(video_path)
    for name, values in vars(first).items():
        assert np.array_equal(getattr(again, name), values)


def made_up(seed: int, frames: int = 3, tracks: int = 2) -> CaptionedVideo:
    """What is done shows in the frames' first feature, where in the tracks' places."""
    rng = np.random.default_rng(seed)
    does, where = rng.integers(0, 2, 2)
    features = rng.normal(size=(frames + tracks, 6)).astype(np.float16) * 0.5
    features[:frames, 0] += 3 * (2 * does - 1)
    places = rng.normal(size=(tracks, len(PLACES))).astype(np.float32) * 0.1
    places[:, 0] = where
    verb, place = ("runs", "jumps")[does], ("left", "right")[where]
    said = (("", f"it {verb} on the {place}"), (DOES, verb), (WHERE, place))
    return CaptionedVideo(VideoTokens(features[:frames], features[frames:], places), said)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(text for video in (made_up(n) for n in range(20)) for pair in video.said for text in pair)


def build(tokenizer, **options) -> VideoCaptioner:
    torch.manual_seed(0)
    videos = [made_up(n).tokens for n in range(20)]
    return VideoCaptioner(VideoCaptionerConfig.for_data(tokenizer, videos, 32, 1, **options)).eval()


def test_padding_changes_nothing(tokenizer):
    model = build(tokenizer)
    videos = [made_up(0, frames=2, tracks=0), made_up(1, frames=7, tracks=3)]
    for video in videos:
        alone = mean_loss(model, tokenizer, [video])
        texts = encode_texts(tokenizer, [video.said[0], (DOES, "it runs and runs and runs on the left")])
        with torch.no_grad():
            logits = model([video.tokens, videos[1].tokens], **texts).logits[:1]
        count = int((texts["labels"][0] != -100).sum())
        single = encode_texts(tokenizer, video.said[:1])
        with torch.no_grad():
            wanted = model([video.tokens], **single).logits
        assert torch.allclose(logits[:, : wanted.shape[1]], wanted, atol=1e-5) and count and np.isfinite(alone)


def test_answers_are_the_likeliest_words_one_by_one(tokenizer):
    model, video = build(tokenizer), made_up(3)
    for weights in model.parameters():
        torch.nn.init.normal_(weights, std=0.5)  # so that it does not say one word again and again
    for question in ("", DOES):
        ids = [tokenizer.bos_token_id, *tokenizer.encode(question, add_special_tokens=False), tokenizer.sep_token_id]
        start = len(ids)
        while len(ids) < 64 and ids[-1] != tokenizer.eos_token_id:
            with torch.no_grad():
                given = torch.tensor([ids])
                ids.append(int(model([video.tokens], given, torch.ones_like(given)).logits[0, -1].argmax()))
        other = [made_up(4).tokens, video.tokens, made_up(5).tokens]
        found = answer(model, tokenizer, other, [WHERE, question, "it runs on the left"])[1]
        wanted = tokenizer.decode(ids[start:], skip_special_tokens=True)
        assert len(set(found.split())) > 1 and wanted.startswith(found)  # padding of a batch counts as words


@pytest.mark.parametrize(("sees", "right"), [("both", "11"), ("frames", "10"), ("tracks", "01"), ("nothing", "00")])
def test_what_a_captioner_sees_is_what_it_learns(tokenizer, sees, right):
    train, dev = [made_up(n) for n in range(200)], [made_up(1000 + n) for n in range(60)]
    model = build(tokenizer, sees=sees, token_dropout=0.1)
    train_captioner(model, tokenizer, train, dev, SETTINGS, seed=0)
    for question, wanted in zip((1, 2), right, strict=True):
        truth = [video.said[question][1] for video in dev]
        found = answer(model, tokenizer, [video.tokens for video in dev], [dev[0].said[question][0]] * len(dev))
        share = np.mean([a == b for a, b in zip(found, truth, strict=True)])
        assert share > 0.95 if wanted == "1" else share < 0.7
        assert sees != "nothing" or len(set(found)) == 1


STOPPED = """
from kinetrack.hub_scripts.captioning.caption_checkpoint import CaptionCheckpoint
from kinetrack.hub_scripts.captioning.caption_training import train_captioner
train_captioner(model, tokenizer, train, dev, settings, 0, checkpoint=CaptionCheckpoint(file, "key"))
"""


def test_a_killed_training_ends_as_if_nothing_had_happened(tokenizer, start_processes, tmp_path):
    """SIGKILL at a moment drawn anew in every run of this test: in a step, in an evaluation or in a checkpoint."""
    settings = dataclasses.replace(SETTINGS, steps=40, evaluate_every=2)
    train, dev = [made_up(n) for n in range(40)], [made_up(n) for n in range(40, 50)]

    def teach(file) -> tuple[list[dict], dict]:
        model, looks = build(tokenizer), []
        kept = CaptionCheckpoint(file, "key")
        train_captioner(model, tokenizer, train, dev, settings, 0, on_evaluation=looks.append, checkpoint=kept)
        return looks, model.state_dict()

    file = tmp_path / "captions.pt"
    names = {"model": build(tokenizer), "tokenizer": tokenizer, "train": train, "dev": dev}
    (process,) = start_processes(STOPPED, settings=settings, file=file, **names)
    deadline = time.monotonic() + 120
    while not file.is_file():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(random.uniform(0, 0.1))
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL

    (all_looks, weights), (looks, found) = teach(tmp_path / "undisturbed.pt"), teach(file)
    assert 0 < len(looks) < len(all_looks) == 20
    assert looks == all_looks[-len(looks) :]
    assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_a_checkpoint_of_another_training_is_refused_and_can_be_replaced(tokenizer, tmp_path):
    settings, videos, file = dataclasses.replace(SETTINGS, steps=2), [made_up(n) for n in range(8)], tmp_path / "a.pt"

    def teach(parts=(videos[:6], videos[6:]), seed=0, resume=True, **other) -> list[dict]:
        changed, looks = dataclasses.replace(settings, **other), []
        kept = CaptionCheckpoint(file, training_key(changed, seed, parts), resume)
        train_captioner(build(tokenizer), tokenizer, *parts, changed, seed, looks.append, kept)
        return [look["step"] for look in looks]

    assert teach() == [2] and teach() == [] and teach(steps=3) == [3]
    for change in ({"seed": 1}, {"learning_rate": 1.0}, {"parts": (videos[:5], videos[6:])}):
        with pytest.raises(ValueError, match="belongs to other pairs, another model or other settings. Use --fresh"):
            teach(**change)
        assert file.is_file()
    assert teach(seed=1, resume=False) == [2]


def test_a_captioner_is_saved_and_loaded_as_it_is(tokenizer, tmp_path):
    model, video = build(tokenizer, kinetrack_model="some/model", sees="tracks"), made_up(0)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, words = load_captioner(tmp_path)
    assert (again.config.kinetrack_model, again.config.sees) == ("some/model", "tracks")
    assert mean_loss(again, words, [video]) == mean_loss(model, tokenizer, [video])
    assert again.decoder.lm_head.weight is again.decoder.transformer.wte.weight


def test_a_wrong_choice_of_tokens_is_told(tokenizer):
    with pytest.raises(ValueError, match="`sees` must be one of"):
        VideoCaptionerConfig.for_data(tokenizer, [made_up(0).tokens], sees="everything")


def test_words_that_were_not_learned_and_texts_that_are_too_long_are_told(tokenizer):
    assert encode_texts(tokenizer, [("", "Runs NOW")])["input_ids"][0].tolist()[2:4] == [
        tokenizer.convert_tokens_to_ids("runs"),
        tokenizer.unk_token_id,
    ]
    with pytest.raises(ValueError, match="has 103 words, more than 64"):
        encode_texts(tokenizer, [("", "runs " * 100)])


@pytest.fixture
def pairs_file(tmp_path, make_video, draw_frames):
    frames = draw_frames(8, 96, 64)
    for number in range(6):
        make_video(tmp_path / f"{number}.mp4", frames[:: -1 if number % 2 else 1].copy())
    lines = [f"{n}.mp4,it goes {'left' if n % 2 else 'right'}," for n in range(6)]
    lines += [f"{n}.mp4,{'left' if n % 2 else 'right'},Which way?" for n in range(6)]
    file = tmp_path / "pairs.csv"
    file.write_text("path,sentence,question\n" + "\n".join(lines))
    return file


def test_pairs_are_grouped_by_video_and_some_set_aside(pairs_file):
    videos = read_pairs(pairs_file)
    assert [video.path.name for video in videos] == [f"{n}.mp4" for n in range(6)]
    assert videos[0].said == (("", "it goes right"), ("Which way?", "right"))
    train, dev = split_pairs(videos, 0.3)
    assert (len(train), len(dev)) == (4, 2) and not {v.path for v in train} & {v.path for v in dev}
    marked = [dataclasses.replace(video, part="dev" if n < 1 else "train") for n, video in enumerate(videos)]
    assert split_pairs(marked, 0.3)[1] == marked[:1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\n0.mp4,run", "expected a header with `path` and `sentence`"),
        ("path,sentence\nno.mp4,it runs", "line 2: there is no video"),
        ("path,sentence\n0.mp4,", "line 2: the sentence is empty"),
        ("path,sentence,split\n0.mp4,it runs,holdout", "line 2: split is 'holdout'"),
        ("path,sentence,split\n0.mp4,it runs,train\n0.mp4,it runs,val", "line 3: 0.mp4 is in two parts"),
        ("path,sentence\n", "has a header and no lines"),
        ("path,sentence\n0.mp4,it runs", "none is left to learn from"),
    ],
)
def test_pairs_that_cannot_be_used_are_one_clear_error(pairs_file, text, message):
    pairs_file.write_text(text)
    with pytest.raises(ValueError, match=message):
        split_pairs(read_pairs(pairs_file), 0.1)


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_the_same_train_command_takes_pairs_and_caption_uses_them(pairs_file, model_folder, tmp_path):
    settings = [f"captions={pairs_file}", f"output={tmp_path / 'out'}", "captions.steps=4", "captions.hidden_size=16"]
    trained = run("train", f"model={model_folder}", *settings, f"data.cache={tmp_path / 'cache'}")
    assert trained.exit_code == 0, trained.output + str(trained.exception)
    folder = tmp_path / "out" / "model"
    assert f"Trained model: {folder}" in trained.output
    said = run("caption", tmp_path / "0.mp4", tmp_path / "1.mp4", "-c", folder, "-q", "Which way?", "-q", "how?")
    assert said.exit_code == 0, said.output + str(said.exception)
    lines = [line.rpartition(".mp4: ")[2] for line in said.output.splitlines() if ".mp4: " in line]
    assert [line.split("? ")[0] for line in lines] == ["Which way", "how"] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "model=NAME", "captions=no.csv"], "There is no file no.csv"),
        (["caption", "x.mp4", "--captioner", "nowhere"], "There is no captioner at nowhere"),
    ],
)
def test_what_is_not_there_is_told(model_folder, arguments, message):
    result = run(*(argument.replace("NAME", str(model_folder)) for argument in arguments))
    assert result.exit_code != 0 and message in str(result.exception)
