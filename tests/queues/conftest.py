"""One real broker of a kind for each test process, started with the first test that asks for it."""

from collections.abc import Iterator

import pytest

from modelyard.testing.brokers import (
    Broker,
    running_kafka,
    running_nats,
    running_rabbitmq,
    running_redis,
)
from modelyard.testing.conformance.queue import running_or_skip


@pytest.fixture(scope="session")
def redis_broker() -> Iterator[Broker]:
    with running_or_skip(running_redis()) as broker:
        yield broker


@pytest.fixture(scope="session")
def nats_broker() -> Iterator[Broker]:
    with running_or_skip(running_nats()) as broker:
        yield broker


@pytest.fixture(scope="session")
def rabbit_broker() -> Iterator[Broker]:
    with running_or_skip(running_rabbitmq()) as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[Broker]:
    with running_or_skip(running_kafka()) as broker:
        yield broker
