"""Commands that take a checkpoint to the Hub: `kinetrack card`, `kinetrack bundle` and `kinetrack push`."""

from pathlib import Path
from typing import Annotated

import typer

from .cli_options import (
    CheckpointArgument,
    DryUploadOption,
    MessageOption,
    PrivateOption,
    RepositoryArgument,
    UntrainedOption,
)


def card(
    checkpoint: CheckpointArgument,
    allow_untrained: UntrainedOption = False,
) -> None:
    """Write a checkpoint's model card, README.md, from its configuration, its scores and its card_notes.md."""
    from .model_card import write_card

    print(write_card(_folder_of(checkpoint), allow_untrained))


def bundle(
    checkpoint: CheckpointArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")],
    allow_untrained: UntrainedOption = False,
) -> None:
    """Make a Hub repository of a checkpoint: it loads with trust_remote_code=True and nothing of KineTrack installed.

    The last step proves that, in processes that cannot import kinetrack; it takes about a minute.
    """
    from .bundle import bundle as make_bundle

    folder = make_bundle(_folder_of(checkpoint), output, allow_untrained=allow_untrained, progress=True)
    print(f"{folder} loads without KineTrack, with the same outputs to the bit.")
    print(f"Share it with: kinetrack push {folder} OWNER/NAME")


def push(
    folder: Annotated[Path, typer.Argument(help="Folder made by `kinetrack bundle`.", metavar="DIR")],
    repository: RepositoryArgument,
    private: PrivateOption = False,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch to commit to.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead.")] = False,
    message: MessageOption = None,
    allow_untrained: UntrainedOption = False,
    dry_run: DryUploadOption = False,
) -> None:
    """Upload a bundle to the Hub in one commit, after proving again that it loads by itself."""
    from .push import list_upload
    from .push import push as upload

    if dry_run:
        files = list_upload(folder)
        for name, size in files.items():
            print(f"{size / 1e6:10.3f} MB  {name}")
        print(f"{sum(files.values()) / 1e6:10.3f} MB  in {len(files)} files would go to {repository}.")
        return
    url = upload(
        folder,
        repository,
        private=private,
        revision=revision,
        create_pr=create_pr,
        message=message,
        allow_untrained=allow_untrained,
        progress=True,
    )
    print(url)


def _folder_of(checkpoint: str) -> Path:
    """Where a checkpoint lies that is named by its folder, or as installed."""
    from ..processing.loading import SHIPPED_MODELS, shipped_models

    return SHIPPED_MODELS / checkpoint if checkpoint in shipped_models() else Path(checkpoint)


def add_hub_commands(app: typer.Typer) -> None:
    """Registers the commands."""
    example = "[bold]Example[/bold]\n\n[cyan]{}[/cyan]"
    app.command(epilog=example.format("kinetrack card runs/nano/model"))(card)
    app.command(epilog=example.format("kinetrack bundle kinetrack-nano --output my-model"))(bundle)
    app.command(epilog=example.format("kinetrack push my-model me/my-model --private"))(push)
