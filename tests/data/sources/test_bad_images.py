import pytest

from sslight.data.sources.bad_images import BadImage, BadImageLog, check_bad_share, too_many_bad


def bad(*indices: int) -> list[BadImage]:
    return [BadImage(index, f"{index}.jpg", f"/set/{index}.jpg", "damaged") for index in indices]


def test_an_image_met_again_is_counted_not_listed_twice() -> None:
    log = BadImageLog(1000, 0.5)
    log.add(100, bad(7, 3))
    log.add(100, bad(7))
    assert [(image.index, image.count) for image in log.images] == [(3, 1), (7, 2)]


def test_a_handful_is_accepted_whatever_the_share() -> None:
    log = BadImageLog(10, 0.01)
    log.add(10, bad(0, 1, 2))
    with pytest.raises(ValueError, match=r"4 of 10 images seen are unreadable, more than data.max_bad_share=0.01"):
        log.add(10, bad(3))


def test_the_sentence_shows_the_first_files_with_reasons_and_a_remedy() -> None:
    with pytest.raises(ValueError, match=r"/set/0.jpg \(damaged\); .*; and 3 more; repair or remove them, or raise"):
        BadImageLog(100, 0.01).add(10, bad(*range(6)))


def test_one_is_too_many_when_none_is_accepted() -> None:
    with pytest.raises(ValueError, match="1 of 5 images seen"):
        BadImageLog(1000, 0.0).add(5, bad(0))


def test_a_share_below_the_limit_is_accepted_although_chance_puts_it_above_at_first() -> None:
    log = BadImageLog(100_000, 0.01)
    log.add(600, bad(*range(12)))  # 2 %, but six expected and twelve within three standard deviations
    with pytest.raises(ValueError, match="15 of 600"):
        log.add(0, bad(12, 13, 14))


def test_once_the_whole_set_was_seen_the_limit_is_exact() -> None:
    log = BadImageLog(1000, 0.01)
    log.add(1000, bad(*range(10)))
    with pytest.raises(ValueError, match="11 of 1000"):
        log.add(1000, bad(10))


def test_a_log_goes_on_from_a_checkpoint() -> None:
    log = BadImageLog(1000, 0.01)
    log.add(1000, bad(*range(10)))
    again = BadImageLog(1000, 0.01)
    again.load_state_dict(log.state_dict())
    assert again.images == log.images
    with pytest.raises(ValueError, match="11 of 1000"):
        again.add(1, bad(10))


def test_a_whole_set_is_judged_by_the_same_rule_and_one_without_a_readable_image_always_refused() -> None:
    accepted = [(3, 64, 0.01), (3, 4, 0.01), (10, 1000, 0.01), (0, 5, 0.0), (4, 8, 0.5)]
    refused = [(4, 64, 0.01), (11, 1000, 0.01), (1, 1000, 0.0), (5, 8, 0.5)]
    assert not any(too_many_bad(*numbers) for numbers in accepted)
    assert all(too_many_bad(*numbers) for numbers in refused)
    for number, total, share in accepted:
        check_bad_share(number, total, "data.val", share)
    with pytest.raises(
        ValueError, match=r"^4 of the 64 images of data\.val are unreadable, .*allows \(/set/0\.jpg \(damaged"
    ):
        check_bad_share(4, 64, "data.val", 0.01, bad(*range(4)))
    with pytest.raises(ValueError, match=r"^none of the 2 images of data\.val can be read: repair or replace them\.$"):
        check_bad_share(2, 2, "data.val", 1.0)
