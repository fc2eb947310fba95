import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Resize

from sslight.views import center_view
from tests.views import recorded
from tests.views.pillow import Pixels, mean_difference, photograph, pillow_resize


def tensor(image: Pixels) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)


def test_centre_view_gives_the_recorded_pixels() -> None:
    view = center_view(tensor(recorded.pixels("in.image")), 224)
    assert view.shape == (3, 224, 224)
    assert view.permute(1, 2, 0).is_contiguous()
    assert mean_difference(view.permute(1, 2, 0).numpy(), recorded.pixels("out.eval_view")) <= 0.05


@pytest.mark.parametrize(("height", "width"), [(97, 131), (131, 97), (300, 301), (40, 40), (20, 90)])
@pytest.mark.parametrize(("size", "resize"), [(32, None), (64, None), (63, 80), (64, 64)])
def test_centre_view_is_resize_and_center_crop(height: int, width: int, size: int, resize: int | None) -> None:
    image = photograph(height, width, seed=0)
    shorter = round(size * 256 / 224) if resize is None else resize
    resized_size = Resize(shorter)(Image.fromarray(image)).size
    expected = np.asarray(CenterCrop(size)(Image.fromarray(pillow_resize(image, resized_size[::-1]))))
    assert mean_difference(center_view(tensor(image), size, resize).permute(1, 2, 0).numpy(), expected) <= 0.05


def test_wrong_arguments_are_named() -> None:
    image = torch.zeros(3, 50, 50, dtype=torch.uint8)
    with pytest.raises(ValueError, match="resize=32 is smaller than size=64"):
        center_view(image, 64, 32)
    with pytest.raises(ValueError, match=r"shape \(1, 50, 50\)"):
        center_view(image[:1], 32)
    with pytest.raises(ValueError, match=r"dtype torch\.float32"):
        center_view(image.float(), 32)
