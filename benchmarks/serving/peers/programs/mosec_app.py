"""mosec with dynamic batching: one route a model, up to 64 requests a run, 1 ms of waiting at most."""

import msgspec
import numpy as np
from mosec import Runtime, Server, Worker
from sessions import NAMES, open_session, to_array, to_document


class Base(Worker):
    name = ""

    def __init__(self):
        super().__init__()
        self.session = open_session(self.name)

    def deserialize(self, data):
        return to_array(msgspec.json.decode(data))

    def serialize(self, data):
        return msgspec.json.encode(data)

    def forward(self, data):
        answer = self.session.run(None, {"x": np.concatenate(data)})[0]
        return [to_document(self.name, answer[index : index + 1]) for index in range(len(data))]


class S(Base):
    name = "s"


class M(Base):
    name = "m"


class R(Base):
    name = "r"


if __name__ == "__main__":
    server = Server()
    kinds = {"s": S, "m": M, "r": R}
    server.register_runtime(
        {f"/{name}": [Runtime(kinds[name], num=1, max_batch_size=64, max_wait_time=1)] for name in NAMES}
    )
    server.run()
