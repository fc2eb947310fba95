from sslight.data import evenly_spread


def test_positions_are_spread_from_the_first_image_to_the_last_and_are_all_of_few_images() -> None:
    assert evenly_spread(6, 3).tolist() == [0, 2, 5]
    assert [evenly_spread(few, 99).tolist() for few in (1, 6)] == [[0], [0, 1, 2, 3, 4, 5]]
    assert all(evenly_spread(total, 64).tolist() == list(range(total)) for total in range(1, 65))
