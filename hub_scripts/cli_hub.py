"""Commands that take a checkpoint to the Hub: `kinetrack card`, `kinetrack bundle` and `kinetrack push`."""

from pathlib import Path
from typing import Annotated

import typer

UntrainedOption = Annotated[
    bool, typer.Option("--allow-untrained", help="Accept a model whose configuration says trained=false.")
]


def card(
    checkpoint: Annotated[
        str, typer.Argument(help="Folder of a trained model, or one installed with KineTrack.", metavar="CHECKPOINT")
    ],
    allow_untrained: UntrainedOption = False,
) -> None:
    """Write a checkpoint's model card, README.md, from its configuration, its scores and its card_notes.md."""
    from ..processing.loading import SHIPPED_MODELS, shipped_models
    from .model_card import write_card

    folder = SHIPPED_MODELS / checkpoint if checkpoint in shipped_models() else checkpoint
    print(write_card(folder, allow_untrained))


def bundle(
    checkpoint: Annotated[
        str, typer.Argument(help="Folder of a trained model, or one installed with KineTrack.", metavar="CHECKPOINT")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")],
    allow_untrained: UntrainedOption = False,
) -> None:
    """Make a Hub repository of a checkpoint: it loads with trust_remote_code=True and nothing of KineTrack installed.

    The last step proves that, in processes that cannot import kinetrack; it takes about a minute.
    """
    from ..processing.loading import SHIPPED_MODELS, shipped_models
    from .bundle import bundle as make_bundle

    folder = SHIPPED_MODELS / checkpoint if checkpoint in shipped_models() else checkpoint
    folder = make_bundle(folder, output, allow_untrained=allow_untrained, progress=True)
    print(f"{folder} loads without KineTrack, with the same outputs to the bit.")
    print(f"Share it with: kinetrack push {folder} OWNER/NAME")


def push(
    folder: Annotated[Path, typer.Argument(help="Folder made by `kinetrack bundle`.", metavar="DIR")],
    repository: Annotated[str, typer.Argument(help="Where on the Hub.", metavar="OWNER/NAME")],
    private: Annotated[bool, typer.Option("--private", help="A new repository is only for you.")] = False,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch to commit to.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead.")] = False,
    message: Annotated[str | None, typer.Option("--message", help="Of the commit.")] = None,
    allow_untrained: UntrainedOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would go, without a network.")] = False,
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


def add_hub_commands(app: typer.Typer) -> None:
    """Registers the commands."""
    example = "[bold]Example[/bold]\n\n[cyan]{}[/cyan]"
    app.command(epilog=example.format("kinetrack card runs/nano/model"))(card)
    app.command(epilog=example.format("kinetrack bundle kinetrack-nano --output my-model"))(bundle)
    app.command(epilog=example.format("kinetrack push my-model me/my-model --private"))(push)
