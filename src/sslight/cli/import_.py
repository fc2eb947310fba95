"""``sslight import``: other programs' weights as backbones of this program."""

from pathlib import Path
from typing import Annotated

import typer

from sslight.cli.terminal import AsJson, say, say_json


def import_weights(
    file: Annotated[
        str,
        typer.Argument(
            help="A file of weights (.pth, .pt, .ckpt, .safetensors, the original's .pth.tar), timm:NAME or hf-hub:NAME"
        ),
    ],
    output: Annotated[Path, typer.Argument(help="The file to write, such as backbone.safetensors.")],
    backbone: Annotated[
        str | None, typer.Option(help="timm's name of the network, where the file does not say it.")
    ] = None,
    network: Annotated[
        str, typer.Option(help="student: the network that was trained; teacher: its moving mean (DINO, MoCo).")
    ] = "student",
    as_json: AsJson = False,
) -> None:
    """Write a backbone from anyone's weights in this program's format; nothing in the file is executed."""
    output = output.expanduser()
    if output.exists():
        raise ValueError(f"{output} exists and is not replaced: choose another name.")
    if not output.parent.is_dir():
        raise ValueError(f"{output} cannot be written: there is no folder {output.parent}.")
    from sslight.backbones import num_features, open_weights, save_backbone

    weights = open_weights(file, backbone=backbone)
    if weights.own:
        raise ValueError(f"{file} is of this program: use it as it is.")
    info = weights.described()
    module, changes = weights.build(network)
    notes = {"source": weights.source, **info.notes, "network": network}
    save_backbone(module, output, **info.to_build() | {"notes": notes})
    result = {"backbone": info.name, "num_features": num_features(module), **notes}
    if as_json:
        say_json({**result, "output": output, "changes": changes})
        return
    method = f" of {info.notes['method']}" if "method" in info.notes else ""
    said = [f"the {network} network{method}, {info.name} with {result['num_features']} features"]
    if method:
        epoch = info.notes.get("epoch")
        said.append(f"after {epoch} epochs" if epoch else "after an unknown number of epochs")
    if "normalization" in info.notes:
        changes = [*changes, f"input normalized {info.notes['normalization']}"]
    say(f"{file}: {'; '.join([', '.join(said), *changes, f'written to {output}'])}.")
