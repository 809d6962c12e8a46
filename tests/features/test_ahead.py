"""Reading ahead of a loop."""

import threading

import pytest

from cmer.features.ahead import read_ahead


def test_items_come_in_order_and_one_is_read_ahead() -> None:
    begun, reads = [], [threading.Event() for _ in range(6)]

    def read(item):
        begun.append((item, threading.current_thread() is threading.main_thread()))
        reads[item].set()
        return 10 * item

    found = read_ahead(read, range(6))
    assert not begun
    for item in range(5):
        assert next(found) == 10 * item
        assert reads[item + 1].wait(10)  # without a request for it
        assert len(begun) == item + 2  # and no further item
    assert list(found) == [50]
    assert begun == [(item, False) for item in range(6)]
    assert list(read_ahead(read, [])) == []


def test_an_error_is_raised_at_its_item() -> None:
    found = read_ahead(lambda item: 6 // item, [3, 2, 0, 1])
    assert [next(found), next(found)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(found)
