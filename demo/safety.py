"""Closes the ways by which Gradio's own routes would make the server read an address for a visitor."""

import gradio as gr

_REFUSED = b"Only files of this demo are served."


def uploaded_video(**options) -> gr.Video:
    """A video that a visitor uploaded, recorded or took from the examples.

    Gradio's component also takes an address in place of a file, from whoever calls the API, and fetches it; this one
    answers with an error.

    Args:
        **options: of `gradio.Video`.
    """
    video = gr.Video(**options)
    keep_file = video.async_move_resource_to_block_cache

    async def keep_files_only(url_or_file_path):
        if "://" in str(url_or_file_path):
            raise gr.Error("Upload the video; addresses are not fetched here.", print_exception=False)
        return await keep_file(url_or_file_path)

    # On the instance: a subclass would make Gradio write a stub file beside this one.
    video.async_move_resource_to_block_cache = keep_files_only
    return video


class NoProxy:
    """ASGI middleware: Gradio's `/file=` route serves this demo's files, and fetches no other server's for anybody.

    Args:
        app: what it stands before.
    """

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        """Answers 403 to addresses of other servers."""
        path = scope.get("path", "").lower()
        target = next((path.partition(way)[2] for way in ("/file=", "/file/", "/proxy=") if way in path), "")
        if scope["type"] == "http" and (target.startswith(("http:", "https:")) or "://" in target):
            headers = [(b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": _REFUSED})
            return
        await self.app(scope, receive, send)
