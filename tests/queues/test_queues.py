"""The suite of message queues against every real broker."""

import pytest

from modelyard.domain.errors.platform import InvalidRequest, NotSupported, Unavailable
from modelyard.foundation.queueing import read_address
from modelyard.processes.queues import open_queue
from modelyard.testing.brokers import Broker
from modelyard.testing.conformance.queue import QueueConformance, QueuePlace, consume_with_kills, message
from modelyard.testing.servers import free_port


def place_of(broker: Broker, tmp_path, *, kills: int = 3) -> QueuePlace:
    return QueuePlace(
        url=broker.url,
        directory=tmp_path,
        take_down=broker.stop,
        bring_up=broker.start,
        kills=kills,
    )


class TestEmbedded(QueueConformance):
    @pytest.fixture
    def place(self, tmp_path):
        return QueuePlace(url="embedded:", directory=tmp_path / "queue", kills=5)


class TestRedis(QueueConformance):
    @pytest.fixture
    def place(self, redis_broker, tmp_path):
        return place_of(redis_broker, tmp_path)


class TestNats(QueueConformance):
    @pytest.fixture
    def place(self, nats_broker, tmp_path):
        return place_of(nats_broker, tmp_path, kills=2)


class TestRabbit(QueueConformance):
    @pytest.fixture
    def place(self, rabbit_broker, tmp_path):
        return place_of(rabbit_broker, tmp_path)


class TestKafka(QueueConformance):
    @pytest.fixture
    def place(self, kafka_broker, tmp_path):
        return place_of(kafka_broker, tmp_path, kills=2)


@pytest.mark.slow
async def test_fifty_kills_lose_nothing_and_double_nothing(redis_broker, tmp_path):
    place = place_of(redis_broker, tmp_path)
    queue = place.open()
    await consume_with_kills(place, queue, "fifty.kills", tmp_path, kills=50, messages=1500)
    await queue.close()


@pytest.mark.parametrize("scheme", ["redis", "nats", "amqp", "kafka"])
async def test_nobody_answers_and_the_password_is_not_shown(scheme, tmp_path):
    queue = open_queue(f"{scheme}://me:geheim@127.0.0.1:{free_port()}", directory=tmp_path)
    with pytest.raises(Unavailable) as caught:
        await queue.publish("a.topic", [message(1)])
    assert "geheim" not in str(caught.value)
    assert "me:***@127.0.0.1" in str(caught.value)
    await queue.close()


def test_addresses_that_cannot_be(tmp_path):
    for wrong in ("", "nonsense", "redis://", "redis://host:port"):
        with pytest.raises(InvalidRequest):
            open_queue(wrong, directory=tmp_path)
    with pytest.raises(NotSupported, match="smtp"):
        open_queue("smtp://host", directory=tmp_path)
    address = read_address("amqp://user:p%40ss@host:5672/v?x=1")
    assert (str(address), address.password, address.option("x", "")) == ("amqp://user:***@host:5672/v", "p@ss", "1")
    assert "p@ss" not in repr(address)
