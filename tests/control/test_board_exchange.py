"""What servers say to one control plane is known to the others that share its records."""

import pytest

from modelyard.control.nodes import Board, BoardExchange
from modelyard.domain.routing import ServerReport


@pytest.fixture
def plane(parts, clock):
    def make(name: str):
        board = Board(clock, expected=1, plane=name)
        return board, BoardExchange(parts.database, board, clock=clock)

    return make


def report(table: int, server: str = "server-0") -> ServerReport:
    return ServerReport(server=server, pid=1, started_at=1.0, table_revision=table)


def names(board: Board) -> list[str]:
    return [each.server for each in board.alive()]


def test_each_knows_the_servers_of_both_under_the_same_names(plane, clock):
    (one, exchange_one), (other, exchange_other) = plane("one"), plane("other")
    one.take(report(1))
    other.take(report(2))
    for _ in range(3):
        for exchange in (exchange_one, exchange_other):
            exchange.turn()
        clock.pass_time(seconds=6)
        one.take(report(1))
        other.take(report(2))
    assert names(one) == names(other) == ["one/server-0", "other/server-0"]
    assert [each.table_revision for each in one.alive()] == [1, 2]
    assert [each.server for each in one.own()] == ["one/server-0"]


def test_what_one_says_is_there_at_the_next_turn_once_others_read(plane, clock):
    (one, exchange_one), (other, exchange_other) = plane("one"), plane("other")
    one.take(report(1))
    for _ in range(3):
        exchange_one.turn()
        exchange_other.turn()
        clock.pass_time(seconds=6)
    one.take(report(7))
    exchange_one.turn()
    exchange_other.turn()
    assert [each.table_revision for each in other.alive()] == [7]


def test_a_server_that_comes_is_known_at_the_next_turn_also_to_one_that_was_alone(plane, clock):
    (one, exchange_one), (other, exchange_other) = plane("one"), plane("other")
    one.take(report(1))
    exchange_one.turn()
    exchange_other.turn()
    clock.pass_time(seconds=1)
    other.take(report(1))
    exchange_other.turn()
    exchange_one.turn()
    assert names(one) == ["one/server-0", "other/server-0"]


def test_servers_of_a_control_plane_that_ended_fall_silent(plane, clock):
    (one, exchange_one), (other, exchange_other) = plane("one"), plane("other")
    one.take(report(1))
    exchange_one.turn()
    exchange_other.turn()
    assert names(other) == ["one/server-0"]
    clock.pass_time(seconds=11)
    exchange_other.turn()
    assert names(other) == []


def test_servers_of_others_do_not_make_a_board_complete(plane, clock):
    (one, exchange_one), (other, exchange_other) = plane("one"), plane("other")
    one.take(report(1))
    exchange_one.turn()
    exchange_other.turn()
    assert (one.is_complete, other.is_complete) == (True, False)
    other.take(report(1))
    assert other.is_complete


def test_a_server_has_its_plain_name_where_there_is_one_control_plane(clock):
    board = Board(clock)
    board.take(report(1))
    assert names(board) == ["server-0"]
    assert board.own() == board.alive()
