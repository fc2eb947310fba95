import numpy as np
import pytest
import torch

from sslight.views import MultiCrop, ViewBatch, collate, normalize
from tests.views.pillow import photograph

MULTI_CROP = MultiCrop(num_local=3, global_size=24, local_size=12)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def sample(i: int, label: int | None) -> tuple[list[torch.Tensor], int, int | None]:
    return MULTI_CROP(photograph(40, 50, seed=i).transpose(2, 0, 1), key=(0, 0, i)), 10 * i, label


def test_batch_holds_the_views_of_each_image_views_major() -> None:
    samples = [sample(i, label=i % 2) for i in range(4)]
    batch = collate(samples, num_global=2)
    assert batch.global_views.shape == (2, 4, 3, 24, 24)
    assert batch.local_views is not None
    assert batch.local_views.shape == (3, 4, 3, 12, 12)
    assert (batch.num_global, batch.num_local, batch.num_images) == (2, 3, 4)
    for b, (views, _, _) in enumerate(samples):
        for v in range(2):
            assert torch.equal(batch.global_views[v, b], views[v])
        for v in range(3):
            assert torch.equal(batch.local_views[v, b], views[2 + v])
    assert batch.indices.tolist() == [0, 10, 20, 30]
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 1, 0, 1]
    assert batch.labels.dtype == batch.indices.dtype == torch.int64


def test_every_image_of_a_batch_is_channels_last() -> None:
    batch = collate([sample(i, None) for i in range(2)], num_global=2)
    assert batch.global_views.permute(0, 1, 3, 4, 2).is_contiguous()
    assert batch.global_views[0].is_contiguous(memory_format=torch.channels_last)


def test_batches_without_labels_or_local_views_say_so() -> None:
    views, index, _ = sample(0, None)
    batch = collate([(views[:2], index, None)], num_global=2)
    assert batch.labels is None
    assert batch.local_views is None
    assert batch.num_local == 0


def test_role_of_a_view_does_not_come_from_its_size() -> None:
    same_size = MultiCrop(num_global=3, num_local=2, global_size=16, local_size=16)
    views = same_size(photograph(30, 30, seed=0).transpose(2, 0, 1), key=(1,))
    batch = collate([(views, 0, None)], num_global=3)
    assert (batch.num_global, batch.num_local) == (3, 2)


def test_moving_a_batch_keeps_what_it_holds() -> None:
    batch = collate([sample(i, label=i) for i in range(2)], num_global=2)
    moved = batch.to("cpu")
    assert isinstance(moved, ViewBatch)
    assert torch.equal(moved.global_views, batch.global_views)
    assert torch.equal(moved.indices, batch.indices)
    without = collate([sample(0, None)], num_global=2).to(torch.device("cpu"))
    assert without.labels is None


@pytest.mark.gpu
def test_pinned_batch_reaches_the_device_unchanged() -> None:
    batch = collate([sample(i, label=i) for i in range(2)], num_global=2)
    pinned = batch.pin_memory()
    assert pinned.global_views.is_pinned()
    moved = pinned.to("cuda")
    assert moved.local_views is not None
    assert batch.local_views is not None
    assert moved.local_views[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moved.local_views.cpu(), batch.local_views)


def test_samples_that_do_not_belong_together_are_refused() -> None:
    views, index, _ = sample(0, None)
    with pytest.raises(ValueError, match="samples is empty"):
        collate([], num_global=2)
    with pytest.raises(ValueError, match=r"\[4, 5\] views"):
        collate([(views, index, None), (views[:4], index, None)], num_global=2)
    with pytest.raises(ValueError, match="1 of 2 images have a label"):
        collate([(views, index, 3), (views, index, None)], num_global=2)
    with pytest.raises(ValueError, match=r"views of sizes \[\(12, 12, 3\), \(24, 24, 3\)\]"):
        collate([(views, index, None)], num_global=3)


def test_normalise_is_the_formula_in_float32() -> None:
    batch = collate([sample(i, None) for i in range(3)], num_global=2)
    result = normalize(batch.global_views, MEAN, STD)
    assert result.shape == (6, 3, 24, 24)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    pixels = batch.global_views.numpy().astype(np.float64)
    mean, std = (np.array(c).reshape(3, 1, 1) for c in (MEAN, STD))
    expected = (pixels / 255 - mean) / std
    np.testing.assert_allclose(result[3 + 1].numpy(), expected[1, 1], atol=2e-6)
    np.testing.assert_allclose(result[2].numpy(), expected[0, 2], atol=2e-6)


def test_normalise_rounds_once_to_half_precision() -> None:
    batch = collate([sample(0, None)], num_global=2)
    exact = normalize(batch.global_views, MEAN, STD)
    half = normalize(batch.global_views, MEAN, STD, dtype=torch.bfloat16)
    assert half.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(half, exact.to(torch.bfloat16))
    assert batch.global_views.dtype == torch.uint8


def test_normalise_writes_to_given_memory_and_refuses_other() -> None:
    batch = collate([sample(i, None) for i in range(2)], num_global=2)
    expected = normalize(batch.global_views, MEAN, STD)
    memory = torch.full((4, 3, 24, 24), torch.nan).to(memory_format=torch.channels_last)
    result = normalize(batch.global_views, MEAN, STD, out=memory)
    assert result.data_ptr() == memory.data_ptr()
    assert torch.equal(result, expected)
    for wrong in (torch.empty(4, 3, 24, 24), memory[:3], memory.double()):
        with pytest.raises(ValueError, match=r"float32 \(4, 3, 24, 24\) on cpu, channels-last"):
            normalize(batch.global_views, MEAN, STD, out=wrong)


def test_memory_of_the_pixels_does_not_matter_to_normalise() -> None:
    views = collate([sample(i, None) for i in range(3)], num_global=2).global_views
    expected = normalize(views, MEAN, STD)
    assert torch.equal(normalize(views.contiguous(), MEAN, STD), expected)
    wider = torch.cat([views, views], dim=1)[:, :3]
    assert torch.equal(normalize(wider, MEAN, STD), expected)


@pytest.mark.gpu
def test_normalise_is_the_same_on_a_gpu() -> None:
    views = collate([sample(i, None) for i in range(3)], num_global=2).global_views
    on_gpu = normalize(views.cuda(), MEAN, STD)
    assert on_gpu.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(on_gpu.cpu(), normalize(views, MEAN, STD), atol=2e-6, rtol=0)
