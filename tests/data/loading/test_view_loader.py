import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch

from sslight.config import PretrainSettings
from sslight.data import (
    FolderSource,
    Source,
    SyntheticSource,
    ViewLoader,
    build_view_loader,
    decode,
)
from sslight.data.loading.view_loader import available_cores, loader_workers
from sslight.views import MultiCrop, ViewBatch
from tests.data.pictures import write_class_folders

CROPS = MultiCrop(num_global=2, num_local=2, global_size=16, local_size=8, local_scale=(0.1, 0.3))

Make = Callable[..., ViewLoader]

_NOBODY = 65534


@pytest.fixture
def make() -> Iterator[Make]:
    """Builds loaders of small views and closes them at the end."""
    made = []

    def build(source: Source | int, **options: object) -> ViewLoader:
        source = SyntheticSource(source, size=24) if isinstance(source, int) else source
        keywords = {"batch_size": 4, "seed": 5, "multi_crop": CROPS, **options}
        made.append(ViewLoader(source, **keywords))  # type: ignore[arg-type]
        return made[-1]

    yield build
    for loader in made:
        loader.close()


def copies(batches: Iterator[ViewBatch]) -> list[ViewBatch]:
    """The batches with memory of their own: the loader uses its memory again."""

    def own(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor.clone()

    return [ViewBatch(b.global_views.clone(), own(b.local_views), b.indices.clone(), own(b.labels)) for b in batches]


def same(first: list[ViewBatch], second: list[ViewBatch]) -> bool:
    def equal(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
        return a is b if a is None or b is None else torch.equal(a, b)

    return len(first) == len(second) and all(
        equal(getattr(a, name), getattr(b, name))
        for a, b in zip(first, second, strict=True)
        for name in ("global_views", "local_views", "indices", "labels")
    )


def broken_folder(tmp_path: Path, *, good: int, broken: int) -> FolderSource:
    """Images "a/000.jpg"... of which the last ``broken`` are not readable."""
    write_class_folders(tmp_path, {"a": good + broken // 2, "b": broken - broken // 2})
    files = sorted(tmp_path.rglob("*.jpg"))
    for file in files[good:]:
        file.write_bytes(b"broken")
    return FolderSource(tmp_path, labeled=False)


def test_a_batch_has_the_stated_shapes_counts_and_labels(make: Make) -> None:
    batch = next(make(20).epoch(0))
    assert batch.global_views.shape == (2, 4, 3, 16, 16)
    assert batch.local_views is not None
    assert batch.local_views.shape == (2, 4, 3, 8, 8)
    assert batch.global_views.dtype == torch.uint8
    assert batch.global_views.permute(0, 1, 3, 4, 2).is_contiguous()
    assert batch.labels is not None
    assert batch.labels.tolist() == [index % 10 for index in batch.indices.tolist()]


def test_an_unlabelled_source_gives_batches_without_labels(make: Make) -> None:
    assert next(make(SyntheticSource(8, labeled=False)).epoch(0)).labels is None


def test_global_views_alone_give_no_local_ones(make: Make) -> None:
    crops = MultiCrop(num_global=3, num_local=0, global_size=16)
    batch = next(make(8, multi_crop=crops).epoch(0))
    assert batch.global_views.shape == (3, 4, 3, 16, 16)
    assert batch.local_views is None


def test_views_are_those_of_multi_crop_for_seed_epoch_and_index(make: Make) -> None:
    source = SyntheticSource(8)
    batch = next(make(source, seed=11).epoch(3))
    for position, index in enumerate(batch.indices.tolist()):
        views = CROPS(decode(source.read(index)), (11, 3, index))
        assert batch.local_views is not None
        assert torch.equal(batch.global_views[:, position], torch.stack(views[:2]))
        assert torch.equal(batch.local_views[:, position], torch.stack(views[2:]))


def test_any_number_of_workers_gives_the_same_batches(make: Make) -> None:
    alone, one, three = (make(22, workers=workers) for workers in (0, 1, 3))
    for epoch in (0, 1):
        expected = copies(alone.epoch(epoch))
        assert len(expected) == 5
        assert same(copies(one.epoch(epoch)), expected)
        assert same(copies(three.epoch(epoch)), expected)


def test_each_epoch_visits_every_image_once_in_another_order(make: Make) -> None:
    loader = make(20)
    orders = [torch.cat([batch.indices for batch in loader.epoch(epoch)]).tolist() for epoch in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(20))
    assert orders[0] != orders[1]


def test_the_incomplete_last_batch_is_dropped(make: Make) -> None:
    loader = make(11)
    assert loader.steps_per_epoch == 2
    assert len(list(loader.epoch(0))) == 2


def test_processes_together_see_the_batches_of_one(make: Make) -> None:
    whole = copies(make(17, batch_size=6).epoch(2))
    ranks = [copies(make(17, batch_size=2, rank=rank, world_size=3).epoch(2)) for rank in range(3)]
    for step, batch in enumerate(whole):
        parts = [rank[step] for rank in ranks]
        assert torch.equal(torch.cat([part.indices for part in parts]), batch.indices)
        assert torch.equal(torch.cat([part.global_views for part in parts], dim=1), batch.global_views)


def test_accumulated_parts_together_are_the_whole_batch(make: Make) -> None:
    whole = copies(make(13, batch_size=6).epoch(0))
    split = make(13, batch_size=6, accumulate=3)
    assert (split.steps_per_epoch, split.accumulate) == (2, 3)
    parts = copies(split.epoch(0, start_step=1))
    assert [part.num_images for part in parts] == [2, 2, 2]
    assert torch.equal(torch.cat([part.global_views for part in parts], dim=1), whole[1].global_views)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_started_in_the_middle_is_the_tail_of_the_whole(make: Make, workers: int) -> None:
    whole = copies(make(30).epoch(4))
    for start in (0, 3, 6):
        assert same(copies(make(30, workers=workers).epoch(4, start_step=start)), whole[start:])
    assert copies(make(30).epoch(4, start_step=7)) == []


def test_an_epoch_left_early_does_not_disturb_the_next(make: Make) -> None:
    expected = copies(make(40).epoch(1))
    loader = make(40, workers=2)
    left = loader.epoch(0)
    next(left)
    next(left)
    held = copies(iter([next(left)]))
    kept = loader.epoch(1)
    assert same(copies(kept), expected)
    assert same(copies(make(40).epoch(0))[2:3], held)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_stays_whole_while_the_next_one_is_drawn(make: Make, workers: int) -> None:
    expected = copies(make(40, batch_size=3).epoch(0)) + copies(make(40, batch_size=3).epoch(1))
    loader = make(40, batch_size=3, workers=workers)
    previous = None
    seen = 0
    for batch in (batch for epoch in (0, 1) for batch in loader.epoch(epoch)):
        if previous is not None:
            assert same([previous], [expected[seen - 1]])
        previous = batch
        seen += 1
    assert seen == 26


def test_the_loader_leaves_the_global_random_streams_alone(make: Make) -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    list(make(12, workers=2).epoch(0))
    drawn = torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()  # noqa: NPY002
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    assert drawn == (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random())  # noqa: NPY002


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_replaced_and_listed(make: Make, tmp_path: Path, workers: int) -> None:
    source = broken_folder(tmp_path, good=18, broken=2)
    loader = make(source, workers=workers, max_bad_share=0.1)
    batches = copies(loader.epoch(0))
    indices = torch.cat([batch.indices for batch in batches]).tolist()
    assert len(indices) == 20
    assert max(indices) < 18
    assert [image.index for image in loader.bad_images] == [18, 19]
    assert loader.bad_images[0].name == source.name(18)
    assert loader.bad_images[0].location == str(tmp_path / source.name(18))
    assert "not an image" in loader.bad_images[0].reason
    assert same(batches, copies(make(source, max_bad_share=0.1).epoch(0)))


def test_each_bad_image_is_listed_once_with_a_count_that_survives_a_checkpoint(make: Make, tmp_path: Path) -> None:
    source = broken_folder(tmp_path, good=18, broken=2)
    loader = make(source, max_bad_share=0.1)
    for epoch in range(3):
        list(loader.epoch(epoch))
    assert [image.count >= 3 for image in loader.bad_images] == [True, True]
    continued = make(source, max_bad_share=0.1)
    continued.load_state_dict(loader.state_dict())
    assert continued.bad_images == loader.bad_images


@contextmanager
def an_ordinary_user() -> Iterator[None]:
    """Root may read everything, so for a while this process is not root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_file_without_read_permission_counts_as_unreadable(make: Make) -> None:
    with TemporaryDirectory() as name:  # pytest's own folders are closed to all but their owner
        folder = Path(name)
        folder.chmod(0o755)
        source = broken_folder(folder, good=20, broken=0)
        (folder / source.name(0)).chmod(0)
        loader = make(source, max_bad_share=0.1, workers=0)
        with an_ordinary_user():
            list(loader.epoch(0))
    assert [image.reason for image in loader.bad_images] == ["Permission denied"]


def test_a_file_that_vanished_counts_as_unreadable(make: Make, tmp_path: Path) -> None:
    source = broken_folder(tmp_path, good=20, broken=0)
    (tmp_path / source.name(7)).unlink()
    loader = make(source, max_bad_share=0.1)
    list(loader.epoch(0))
    assert [(image.index, image.reason) for image in loader.bad_images] == [(7, "No such file or directory")]


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_unreadable_images_end_in_a_sentence(make: Make, tmp_path: Path, workers: int) -> None:
    loader = make(broken_folder(tmp_path, good=20, broken=20), workers=workers, max_bad_share=0.05)
    with pytest.raises(ValueError, match=r"^\d+ of \d+ images seen are unreadable, more than data.max_bad_share=0.05"):
        list(loader.epoch(0))


def test_no_unreadable_image_is_accepted_when_none_is_allowed(make: Make, tmp_path: Path) -> None:
    loader = make(broken_folder(tmp_path, good=39, broken=1), max_bad_share=0.0)
    with pytest.raises(ValueError, match=r"1 of \d+ images seen are unreadable, more than data.max_bad_share=0 allows"):
        list(loader.epoch(0))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_set_without_any_readable_image_ends_in_a_sentence(make: Make, tmp_path: Path, workers: int) -> None:
    loader = make(broken_folder(tmp_path, good=0, broken=6), workers=workers, max_bad_share=1.0)
    with pytest.raises(ValueError, match=r"no readable image among the 6 tried: .*000.jpg \(not an image.*and 3 more"):
        list(loader.epoch(0))


def test_a_batch_larger_than_the_set_is_refused(make: Make) -> None:
    with pytest.raises(
        ValueError, match=r"batch_size=8 is more than the 7 images of data.train; set batch_size to at most 6 or"
    ):
        make(7, world_size=2)


def test_a_set_too_small_for_any_batch_is_said_to_be(make: Make) -> None:
    with pytest.raises(ValueError, match=r"^data\.train holds 1 image: at least 2 are needed\.$"):
        make(1)
    with pytest.raises(
        ValueError, match=r"^data\.train holds 3 images: at least 4 are needed, two for each of 2 parts"
    ):
        make(3, world_size=2)


def test_the_loader_of_the_settings_has_their_share_of_the_batch() -> None:
    settings = PretrainSettings(batch_size=12, accumulate=2, seed=3, workers=0)
    loader = build_view_loader(
        settings, SyntheticSource(30), CROPS, rank=1, world_size=3, local_world_size=1, pin_memory=False
    )
    assert loader.steps_per_epoch == 2
    batches = copies(loader.epoch(0))
    assert [batch.num_images for batch in batches] == [2, 2, 2, 2]
    whole = ViewLoader(SyntheticSource(30), CROPS, batch_size=12, seed=3)
    first = next(whole.epoch(0))
    assert torch.equal(first.indices[4:6], batches[0].indices)
    assert torch.equal(first.indices[6:8], batches[1].indices)


def test_workers_take_the_cores_but_one_unless_they_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sslight.data.loading.view_loader.available_cores", lambda: 16)
    for workers, local_world_size, expected in ((None, 1, 15), (None, 4, 3), (None, 16, 1), (None, 100, 1), (5, 2, 5)):
        settings = PretrainSettings(batch_size=4, workers=workers)
        assert loader_workers(settings, local_world_size) == expected


def test_the_loader_of_the_settings_has_these_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Recorder:
        def __init__(self, *_: object, workers: int, **__: object) -> None:
            asked.append(workers)

    monkeypatch.setattr("sslight.data.loading.view_loader.ViewLoader", Recorder)
    settings = PretrainSettings(batch_size=4, workers=7)
    build_view_loader(settings, SyntheticSource(30), CROPS, rank=0, world_size=1, local_world_size=1, pin_memory=False)
    assert asked == [7]


def test_the_time_that_a_container_may_use_limits_the_cores(tmp_path: Path) -> None:
    file = tmp_path / "cpu.max"
    cores = available_cores(file)
    assert cores >= 1
    for text, expected in (
        ("max 100000\n", cores),
        ("100000 100000\n", 1),
        ("50000 100000\n", 1),
        (f"{10 * cores}00000 100000\n", cores),
        ("nonsense\n", cores),
    ):
        file.write_text(text)
        assert available_cores(file) == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_scaled_decoding_gives_nearly_the_same_views_however_many_workers(make: Make, workers: int) -> None:
    large = SyntheticSource(8, size=200)  # crops of 8 px from a tenth of the area: an eighth of the sides is enough
    geometry = MultiCrop(2, 2, 16, 8, (0.5, 1.0), (0.3, 0.5), jitter_prob=0.0, grayscale_prob=0.0)
    assert 4 <= geometry.most_shrinking(200, 200) < 8
    exact = copies(make(large, multi_crop=geometry).epoch(0))
    scaled = copies(make(large, multi_crop=geometry, workers=workers, scaled_decoding=True).epoch(0))
    assert same(scaled, copies(make(large, multi_crop=geometry, scaled_decoding=True).epoch(0)))
    assert not same(scaled, exact)
    for one, other in zip(scaled, exact, strict=True):
        assert (one.global_views.float() - other.global_views.float()).abs().mean() < 12


def test_scaled_decoding_leaves_small_images_as_they_are(make: Make) -> None:
    small = SyntheticSource(8, size=24)
    assert same(copies(make(small, scaled_decoding=True).epoch(0)), copies(make(small).epoch(0)))


class Registry:
    """CUDA's registered memory, as far as the loader uses it."""

    class cudaError:
        success = 0

    def __init__(self, most: int) -> None:
        self.most, self.registered = most, dict[int, int]()

    def cudaHostRegister(self, pointer: int, size: int, flags: int) -> int:
        if len(self.registered) == self.most:
            return 2
        self.registered[pointer] = size
        return 0

    def cudaHostUnregister(self, pointer: int) -> int:
        del self.registered[pointer]
        return 0


@pytest.mark.parametrize("refuses", [False, True])
def test_the_memory_of_batches_is_registered_once_and_copied_only_where_that_is_refused(
    refuses: bool, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(2 if refuses else 100)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: registry)
    pinned: list[ViewBatch] = []

    def pin(batch: ViewBatch) -> ViewBatch:
        pinned.append(batch)
        return batch

    monkeypatch.setattr(ViewBatch, "pin_memory", pin)
    loader = make(8, pin_memory=True)
    before = dict(registry.registered)
    batches = list(loader.epoch(0))
    assert registry.registered == before
    assert len(pinned) == (len(batches) if refuses else 0)
    if not refuses:
        assert all(batch.global_views.data_ptr() in before for batch in batches)
    loader.close()
    assert registry.registered == {}
