"""Every broker over TLS: it has to prove its name, and nothing is sent to one that does not."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import trustme

from modelyard.domain.errors.platform import InvalidRequest, Unavailable
from modelyard.processes.queues import open_queue
from modelyard.testing.brokers import (
    Broker,
    Certificate,
    running_kafka,
    running_nats,
    running_rabbitmq,
    running_redis,
)
from modelyard.testing.conformance.queue import message, running_or_skip, take

Start = Callable[[Certificate | None], AbstractContextManager[Broker]]
STARTS: dict[str, Start] = {
    "redis": running_redis,
    "nats": running_nats,
    "kafka": running_kafka,
    "rabbitmq": running_rabbitmq,
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> tuple[trustme.CA, Path]:
    place = tmp_path_factory.mktemp("authority")
    ours = trustme.CA()
    ours.cert_pem.write_to_path(place / "ca.pem")
    return ours, place / "ca.pem"


def certificate_of(authority: trustme.CA, place: Path, name: str) -> Certificate:
    made = authority.issue_cert(name)
    files = Certificate(chain=place / "chain.pem", key=place / "key.pem")
    for number, part in enumerate(made.cert_chain_pems):
        part.write_to_path(files.chain, append=number > 0)
    made.private_key_pem.write_to_path(files.key)
    return files


@pytest.fixture(params=list(STARTS))
def start(request) -> Start:
    return STARTS[request.param]


async def test_a_broker_proves_its_name_to_those_who_trust_its_authority(start, authority, tmp_path):
    ours, ca = authority
    with running_or_skip(start(certificate_of(ours, tmp_path, "127.0.0.1"))) as broker:
        queue = open_queue(broker.url, ca=str(ca), directory=tmp_path)
        await queue.ensure("secret", "g")
        await queue.publish("secret", [message(1)])
        member = await queue.subscribe("secret", "g", member="a", prefetch=2, most_attempts=3)
        await member.ack(await take(member))
        await member.close()
        await queue.close()

        stranger = tmp_path / "stranger.pem"
        trustme.CA().cert_pem.write_to_path(stranger)
        for authority_file in ("", str(stranger)):
            queue = open_queue(broker.url, ca=authority_file, directory=tmp_path)
            with pytest.raises(Unavailable) as caught:
                await queue.publish("secret", [message(2)])
            assert "--broker-ca" in (caught.value.hint or "")
            await queue.close()


async def test_a_certificate_for_another_name_is_no_proof(start, authority, tmp_path):
    ours, ca = authority
    with running_or_skip(start(certificate_of(ours, tmp_path, "elsewhere.example"))) as broker:
        queue = open_queue(broker.url, ca=str(ca), directory=tmp_path)
        with pytest.raises(Unavailable):
            await queue.publish("secret", [message(1)])
        await queue.close()


def test_certificates_that_prove_nothing_are_told(tmp_path):
    broken = tmp_path / "broken.pem"
    broken.write_text("not a certificate")
    with pytest.raises(InvalidRequest, match="no certificates"):
        open_queue("rediss://host", ca=str(broken), directory=tmp_path)
    with pytest.raises(InvalidRequest, match="not encrypted"):
        open_queue("redis://host", ca=str(broken), directory=tmp_path)
