"""``sslight import``: the original implementation's checkpoints as backbones of this program."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sslight.cli.terminal import say


def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="A checkpoint (.pth.tar) of the original implementation.")],
    output: Annotated[Path, typer.Argument(help="The file to write, such as backbone.safetensors.")],
    network: Annotated[
        str, typer.Option(help="student: the network that was trained; teacher: its moving mean (DINO, MoCo).")
    ] = "student",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")] = False,
) -> None:
    """Write the backbone of an original checkpoint in this program's format; nothing in it is executed."""
    file, output = file.expanduser(), output.expanduser()
    if output.exists():
        raise ValueError(f"{output} exists and is not replaced: choose another name.")
    if not output.parent.is_dir():
        raise ValueError(f"{output} cannot be written: there is no folder {output.parent}.")
    from sslight.backbones import load_backbone, num_features, read_backbone_info, save_backbone

    info = read_backbone_info(file)
    if "method" not in info.notes or "network" in info.notes:  # the latter is written below
        raise ValueError(f"{file} is not a checkpoint of the original implementation: use it as it is.")
    backbone = load_backbone(file, network=network)
    save_backbone(
        backbone,
        output,
        name=info.name,
        image_size=info.image_size,
        patch_size=info.patch_size,
        mean=info.mean,
        std=info.std,
        notes={**info.notes, "network": network},
    )
    result = {"backbone": info.name, "network": network, "num_features": num_features(backbone), **info.notes}
    if as_json:
        print(json.dumps({**result, "output": str(output)}))
        return
    trained = f"after {info.notes['epoch']} epochs" if "epoch" in info.notes else "after an unknown number of epochs"
    say(
        f"{file}: the {network} network of {info.notes['method']}, {info.name} with {result['num_features']} features, "
        f"{trained}; written to {output}."
    )
