"""Live, Compare and How it works in a real browser."""

import pytest

FIGURE = "document.querySelector('[data-figure={}]').textContent"


def number(visitor, name: str) -> float:
    return float(visitor.page.evaluate(FIGURE.format(name)).split()[0])


def test_the_webcam_is_followed_live(visit, patience):
    visitor = visit()
    visitor.open()
    visitor.tab("Live")
    visitor.page.get_by_role("button", name="Start the camera").click()
    visitor.page.locator(".kt-live-people li").first.wait_for()
    visitor.page.wait_for_function(f"parseFloat({FIGURE.format('rate')}) > 0")
    visitor.page.wait_for_timeout(2000)
    visitor.picture("10-live")
    assert number(visitor, "rate") > 1 / patience
    assert 0 < number(visitor, "model") <= number(visitor, "delay") * 1.5
    # Frames are dropped, not queued: two on their way are at most about two looks and their travel.
    assert number(visitor, "delay") < 4 * number(visitor, "model") + 400 * patience
    assert visitor.page.locator(".kt-live-people .kt-badge").first.inner_text().startswith("#")
    drawn = """() => {
      const canvas = document.querySelector('#kt-live .kt-overlay');
      return canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some((v) => v > 0);
    }"""
    visitor.page.wait_for_function(drawn)
    visitor.page.get_by_role("button", name="Stop the camera").click()
    assert visitor.page.locator(".kt-camera-off").is_visible()
    assert visitor.page.evaluate("document.querySelector('#kt-live video').srcObject") is None


def test_two_settings_are_compared_in_step(visit, long_video_path, patience):
    visitor = visit()
    visitor.open()
    visitor.tab("Compare")
    visitor.give(long_video_path, "#kt-compare-video")
    visitor.page.locator("#kt-right-task").get_by_text("Only tracking").click()
    visitor.page.locator("#kt-compare-run").click()
    videos = visitor.page.locator("#kt-compare-result .kt-result video")
    videos.nth(1).wait_for(timeout=120_000 * patience)
    visitor.wait_for_frame("#kt-compare-result")
    assert videos.count() == 2
    videos.nth(0).evaluate("(video) => (video.currentTime = 1.5)")
    visitor.page.wait_for_function(
        "[...document.querySelectorAll('#kt-compare-result video')].every((v) => Math.abs(v.currentTime - 1.5) < 0.2)"
    )
    videos.nth(1).evaluate("(video) => { video.play(); }")
    visitor.page.wait_for_function("document.querySelector('#kt-compare-result video').currentTime > 1.8")
    rows = {row.locator("th").inner_text(): row for row in visitor.page.locator(".kt-differences tbody tr").all()}
    assert "kt-differs" in rows["Task"].get_attribute("class")
    assert rows["What happens"].locator("td").nth(1).inner_text() == "not asked"
    assert rows["Model"].get_attribute("class") is None


def test_two_checkpoints_are_compared_each_at_its_own_threshold(visit, patience):
    visitor = visit()
    visitor.open()
    visitor.tab("Compare")
    visitor.page.get_by_role("button", name="Use the example", exact=True).click()
    visitor.page.locator("#kt-compare-video video").wait_for()
    for side in ("left", "right"):
        visitor.choose(f"#kt-{side}-fps", "5 a second")
    visitor.page.get_by_role("button", name="More settings").nth(1).click()
    visitor.choose("#kt-right-model", "kinetrack-strict")
    visitor.page.wait_for_function("document.querySelector('#kt-right-threshold input[type=number]').value === '0.6'")
    visitor.page.locator("#kt-compare-run").click()
    visitor.page.locator("#kt-compare-result video").nth(1).wait_for(timeout=120_000 * patience)
    visitor.wait_for_frame("#kt-compare-result")
    visitor.picture("11-compare", full_page=True)
    rows = {
        row.locator("th").inner_text(): [cell.inner_text() for cell in row.locator("td").all()]
        for row in visitor.page.locator(".kt-differences tbody tr").all()
    }
    assert rows["Model"] == ["kinetrack-nano", "kinetrack-strict"]
    assert rows["Threshold"][1] == "0.6" and rows["Threshold"][0] != "0.6"
    assert float(rows["In view at once"][0].split()[0]) > float(rows["In view at once"][1].split()[0])


def test_the_explanation_talks_about_this_very_clip(analysed):
    analysed.tab("How it works")
    clip = analysed.page.locator("#kt-explained")
    clip.get_by_text("In this very clip: pets2009.mp4").wait_for()
    assert clip.locator("figure img").count() == 2
    assert "times the average" in clip.inner_text()
    assert analysed.page.locator("svg.kt-figure").is_visible()
    analysed.picture("12-how", full_page=True)
    analysed.tab("Video")


def test_a_camera_that_is_not_allowed_is_a_sentence(visit):
    visitor = visit()
    visitor.page.add_init_script(
        "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('no', 'NotAllowedError'))"
    )
    visitor.open()
    visitor.tab("Live")
    visitor.page.get_by_role("button", name="Start the camera").click()
    notice = visitor.page.locator(".kt-live-error")
    notice.wait_for()
    assert "The camera was not allowed" in notice.inner_text()


@pytest.mark.parametrize("codec", ["vp8", "mjpeg"])
def test_frames_are_sent_encoded_with_and_without_an_encoder_in_the_browser(visit, codec):
    visitor = visit()
    sent = []
    visitor.page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(frame)))
    if codec == "mjpeg":
        visitor.page.add_init_script("delete window.VideoEncoder")
    visitor.open()
    visitor.tab("Live")
    visitor.page.get_by_role("button", name="Start the camera").click()
    visitor.page.wait_for_function(f"parseFloat({FIGURE.format('rate')}) > 0")
    visitor.page.get_by_role("button", name="Stop the camera").click()
    assert sent[0] == f'{{"codec":"{codec}"}}'
    pictures = [bytes(frame) for frame in sent[1:]]
    assert max(map(len, pictures)) < 200_000  # a raw frame of 640x480 has 900 kB
    if codec == "mjpeg":
        assert all(picture[12:14] == b"\xff\xd8" for picture in pictures)
