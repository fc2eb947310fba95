"""``sslight views`` as a Python function: images and recipes in, a page about their views out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sslight.backbones import patch_side
from sslight.config import ShownRecipe, ViewsPageSettings, build, build_shown_recipes, parse_assignments
from sslight.data import BadImage, ReadLimits, build_source, readable_images
from sslight.files import write_whole
from sslight.preview.diagnostics import RATIO_EDGES, SHARE_EDGES, measure_views
from sslight.preview.matching import describe_match, find_mismatches
from sslight.preview.workload import measure_workload
from sslight.report.page import PageResult, check_page_folder
from sslight.report.views.page import views_page
from sslight.report.views.sheet import ShownImage, ShownView
from sslight.views import MultiCrop, build_multi_crop

_MEASURED = 64
"""Images whose sizes stand for those of the set."""


def show_views(
    data: str | Path | Sequence[str | Path],
    recipe: str | Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    *,
    output: str | Path = "views",
    images: int = 4,
    draws: int = 4000,
    seed: int = 0,
    tar_image: str | None = None,
) -> PageResult:
    """Show the views that recipes make of images, before any training, and say whether they match.

    ``show_views("images", "dino_cnn_sslight", {"views.local_size": 112})``

    Args:
        data: Anything that ``data.train`` takes.
        recipe: Recipes to show. A single one is shown next to its baseline, several are compared with the
            first one; the default is the two CNN recipes of DINO.
        overrides: View settings that differ from the recipes, dotted or nested.
        output: The folder to write; new, empty, or with an earlier page.
        images: Images to show.
        draws: How often the views are drawn for the numbers.
        seed: Chooses the images; the views shown are those of the first epoch of a run with this seed.
        tar_image: Which image to read if a sample in tar shards holds several, as ``data.tar_image``.

    Raises ValueError, before anything is written, if a setting, the folder or the data is wrong.
    """
    values = {"recipe": recipe, "output": Path(output), "images": images, "draws": draws, "seed": seed}
    page = build(ViewsPageSettings, values | {"tar_image": tar_image})
    paths = [data] if isinstance(data, str | Path) else data
    return show_views_with([str(path) for path in paths], page, build_shown_recipes(page.recipe, overrides or {}))


def show_views_with(data: list[str], page: ViewsPageSettings, recipes: list[ShownRecipe]) -> PageResult:
    """:func:`show_views` with settings that are already resolved."""
    file = page.output / "views.html"
    check_page_folder(file)
    source = build_source(data, labeled=False, setting="IMAGES", tar_image=page.tar_image)
    bad: list[BadImage] = []
    sizes: list[tuple[int, int]] = []
    kept: list[tuple[int, Tensor]] = []
    limits = ReadLimits(min(recipe.settings.data.max_pixels for recipe in recipes))
    readable = readable_images(source, seed=page.seed, bad=bad, setting="IMAGES", limits=limits)
    for index, image in islice(readable, max(_MEASURED, page.images)):
        sizes.append((image.shape[1], image.shape[2]))
        if len(kept) < page.images:
            kept.append((index, image))
    sizes_of_images = np.array(sizes)
    measured = [_measured(recipe, recipes[0], sizes_of_images, page) for recipe in recipes]
    named = [each for each in zip(recipes, measured, strict=True) if each[0].name in page.recipe]
    better = next(filter(None, (_better(*each) for each in named or [(recipes[-1], measured[-1])])), None)
    if better is not None:
        figures = _measured(better, recipes[0], sizes_of_images, page)
        if (further := _better(better, figures)) is not None:  # smaller views ask for less blur
            better, figures = further, _measured(further, recipes[0], sizes_of_images, page)
        recipes = [*recipes, better]
        measured.append(figures | {"better": True})
    crops = [(build_multi_crop(recipe.settings.views), page.seed) for recipe in recipes]
    shown = [shown_image(source.name(index), index, image, crops) for index, image in kept]
    content = {
        "data": " ".join(data),
        "images": {
            "number": len(source),
            "measured": len(sizes),
            "median_height": float(np.median(sizes_of_images[:, 0])),
            "median_width": float(np.median(sizes_of_images[:, 1])),
            "unreadable": [asdict(image) for image in bad],
        },
        "draws": page.draws,
        "seed": page.seed,
        "bins": {"shares": SHARE_EDGES.tolist(), "ratios": RATIO_EDGES.tolist()},
        "recipes": measured,
    }
    text = views_page(content, shown)
    page.output.mkdir(parents=True, exist_ok=True)
    write_whole(file, text)  # first, so that the folder is known again
    write_whole(page.output / "views.json", json.dumps(content, indent=1))
    return PageResult(file, content)


def _better(recipe: ShownRecipe, measured: dict[str, Any]) -> ShownRecipe | None:
    """The recipe with the values that are proposed for what does not match; None if nothing is proposed."""
    proposals = [word for mismatch in measured["mismatches"] for word in mismatch["proposal"]]
    if not proposals:
        return None
    values = {word.partition("=")[0]: word for word in [*recipe.changes, *proposals]}
    try:
        return build_shown_recipes([recipe.name], parse_assignments(values.values()))[-1]
    except ValueError:  # values that do not go together, such as a local view larger than the global one
        return None


def shown_image(name: str, index: int, image: Tensor, crops: Sequence[tuple[MultiCrop, int]]) -> ShownImage:
    """An image (uint8 [3, H, W]) with the views that each of some runs (crops, seed) makes of it in its first epoch."""
    views = [_shown_views(multi_crop, image, (seed, 0, index)) for multi_crop, seed in crops]
    return ShownImage(name, image.permute(1, 2, 0).numpy(), views)


def _shown_views(multi_crop: MultiCrop, image: Tensor, key: tuple[int, int, int]) -> list[ShownView]:
    parameters = multi_crop.draw(image.shape[1], image.shape[2], key)
    shown = []
    for number, view in enumerate(multi_crop.apply(image, parameters)):
        is_global = number < multi_crop.num_global
        name = f"G{number + 1}" if is_global else f"L{number + 1 - multi_crop.num_global}"
        top, left, height, width = parameters.boxes[number].tolist()
        pixels, changes = view.permute(1, 2, 0).numpy(), parameters.in_words(number)
        shown.append(ShownView(name, is_global, pixels, (top, left, height, width), changes))
    return shown


def _measured(
    recipe: ShownRecipe, reference: ShownRecipe, sizes: npt.NDArray[np.int64], page: ViewsPageSettings
) -> dict[str, Any]:
    settings = recipe.settings
    side = patch_side(settings.backbone, settings.patch_size)
    statistics = measure_views(settings.views, sizes, num_draws=page.draws, seed=page.seed)
    workload, reference_workload = measure_workload(settings), measure_workload(reference.settings)
    # Pixels cost differently in another network, or in patches of another size.
    networks = [(s.backbone, s.patch_size) for s in (settings, reference.settings)]
    relative = workload.compute / reference_workload.compute if networks[0] == networks[1] else None
    return {
        "name": recipe.name,
        "changes": list(recipe.changes),
        "better": False,
        "method": settings.method,
        "backbone": settings.backbone,
        "patch_side": side,
        "views": settings.views.model_dump(mode="json"),
        "statistics": asdict(statistics),
        "workload": {**asdict(workload), "compute": workload.compute, "relative_compute": relative},
        "mismatches": [asdict(m) for m in find_mismatches(settings, statistics, sizes, patch_side=side)],
        "summary": describe_match(statistics),
    }
