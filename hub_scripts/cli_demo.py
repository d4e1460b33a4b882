"""Commands around the demo: `kinetrack demo` and `kinetrack push-space`."""

from pathlib import Path
from typing import Annotated

import typer

from .cli_options import DeviceOption, DryUploadOption, MessageOption, PrivateOption, RepositoryArgument


def demo(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", help="Installed model, folder or Hub id; several can be compared.", metavar="MODEL"
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option("--port", help="Port. \\[default: the first free one from 7860 on]")
    ] = None,
    device: DeviceOption = None,
    seconds: Annotated[
        float | None, typer.Option("--max-seconds", help="Longest video taken. \\[default: 120]", metavar="S")
    ] = None,
    no_urls: Annotated[bool, typer.Option("--no-urls", help="Do not fetch videos from addresses.")] = False,
    browser: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
) -> None:
    r"""Start the demo: videos and the webcam, in a browser.

    Needs  pip install -e '.\[demo]'  in KineTrack's folder. Nothing leaves this machine.
    """
    from ..demo.app import launch
    from ..demo.options import DemoOptions

    options = DemoOptions.from_environment(
        models=tuple(model) if model else None,
        device=device,
        max_seconds=seconds,
        allow_urls=False if no_urls else None,
    )
    launch(options, host=host, port=port, inbrowser=browser)


def push_space(
    repository: RepositoryArgument,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Hub id that the Space shows. \\[default: the installed model]"),
    ] = None,
    private: PrivateOption = False,
    message: MessageOption = None,
    dry_run: DryUploadOption = False,
) -> None:
    """Upload the demo as a Hugging Face Space, with KineTrack's wheel; the free CPU hardware is enough."""
    from .push_space import build_space
    from .push_space import push_space as upload

    if dry_run:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            files = build_space(Path(folder), model=model)
            for path in files:
                print(f"{path.stat().st_size / 1e6:10.3f} MB  {path.name}")
        print(f"These {len(files)} files would go to the Space {repository}.")
        return
    print(upload(repository, model=model, private=private, message=message))


def add_demo_commands(app: typer.Typer) -> None:
    """Registers the commands."""
    example = "[bold]Examples[/bold]\n\n{}"
    app.command(
        epilog=example.format(
            "The installed model:  [cyan]kinetrack demo --open[/cyan]\n\n"
            "Two checkpoints to compare:  [cyan]kinetrack demo -m kinetrack-nano -m runs/nano/model[/cyan]"
        )
    )(demo)
    app.command(name="push-space", epilog=example.format("[cyan]kinetrack push-space me/kinetrack --private[/cyan]"))(
        push_space
    )
