"""What the control plane believes of its servers right after it started."""

from modelyard.control.nodes import Board
from modelyard.domain.routing import ServerReport
from modelyard.foundation.clock import SetClock


def report(name: str) -> ServerReport:
    return ServerReport(server=name, pid=1, started_at=0.0, table_revision=1)


def test_a_board_is_complete_only_when_every_server_has_spoken() -> None:
    board = Board(SetClock(), expected=2)
    assert not board.is_complete
    board.take(report("one"))
    assert not board.is_complete
    board.take(report("two"))
    assert board.is_complete


def test_a_server_that_stays_silent_is_not_waited_for_for_ever() -> None:
    clock = SetClock()
    board = Board(clock, expected=2)
    board.take(report("one"))
    clock.pass_time(seconds=6.0)
    board.take(report("one"))
    assert board.is_complete
