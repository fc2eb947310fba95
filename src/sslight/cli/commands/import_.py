"""``sslight import``: convert other programs' weights."""

from sslight.cli.grammar import Words
from sslight.cli.terminal import AsJson, say, say_json
from sslight.config import ImportSettings, read_words, take_settings
from sslight.files import check_new


def import_weights(words: Words = None, as_json: AsJson = False) -> None:
    """Convert weights of another program to a backbone file of this program. Nothing in the file is executed."""
    (file,), typed = read_words("import", words)
    chosen = take_settings(typed, ImportSettings)
    output, network = chosen.output, chosen.network
    check_new(output, "output")
    from sslight.backbones import num_features, open_weights, save_backbone

    weights = open_weights(file, backbone=chosen.backbone)
    if weights.own:
        raise ValueError(f"{file} was written by this program: use it directly.")
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
