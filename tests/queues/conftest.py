"""One real broker of a kind for each test process, started with the first test that asks for it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from modelyard.testing.brokers import (
    Broker,
    BrokerMissing,
    running_kafka,
    running_nats,
    running_rabbitmq,
    running_redis,
)


def _running(start: Callable[[], AbstractContextManager[Broker]]) -> Iterator[Broker]:
    try:
        with start() as broker:
            yield broker
    except BrokerMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def redis_broker() -> Iterator[Broker]:
    yield from _running(running_redis)


@pytest.fixture(scope="session")
def nats_broker() -> Iterator[Broker]:
    yield from _running(running_nats)


@pytest.fixture(scope="session")
def rabbit_broker() -> Iterator[Broker]:
    yield from _running(running_rabbitmq)


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[Broker]:
    yield from _running(running_kafka)
