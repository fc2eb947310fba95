"""Names of boxes are legible where boxes begin at the same place."""

from sslight.report.views.sheet import label_places


def test_a_name_moves_right_of_one_that_is_there_and_others_stay_in_their_corner() -> None:
    boxes = [(0, 0, 50, 50), (1, 0, 20, 20), (30, 0, 9, 9), (0, 1, 9, 9)]
    places = label_places(boxes, width=6, height=4)
    assert places[0] == (0, 0)
    assert places[2] == (30, 0)
    assert places[1] == (1, 6)
    for one, (top, left) in enumerate(places):
        for other_top, other_left in places[:one]:
            assert abs(top - other_top) >= 4 or abs(left - other_left) >= 6
