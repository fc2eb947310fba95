import os
import re
import threading

import pytest

from sslight.data.decoding.native_messages import captured_messages

OWN = re.compile(b"mine")


def test_own_lines_are_caught_and_others_are_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    with captured_messages(OWN) as lines:
        os.write(2, b"mine: one\nanother's\nmine: two\n")
    assert lines == ["mine: one", "mine: two"]
    with captured_messages(OWN) as lines:
        os.write(2, b"mine")
    assert lines == ["mine"]
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "another's\nafter\n"


def test_standard_error_is_put_back_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), captured_messages(OWN):
        raise KeyError
    os.write(2, b"here\n")
    assert capfd.readouterr().err == "here\n"


def test_threads_take_turns(capfd: pytest.CaptureFixture[str]) -> None:
    caught: list[str] = []

    def write(number: int) -> None:
        for _ in range(50):
            with captured_messages(OWN) as lines:
                os.write(2, f"mine {number}\n".encode())
            caught.extend(lines)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(caught) == sorted(f"mine {number}" for number in range(4) for _ in range(50))
    assert capfd.readouterr().err == ""
