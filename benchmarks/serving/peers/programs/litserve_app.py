"""LitServe with batching, one API a model."""

import os

import litserve
import numpy as np
from sessions import NAMES, open_session, to_array, to_document


class Api(litserve.LitAPI):
    def __init__(self, name):
        super().__init__(api_path=f"/{name}", max_batch_size=64, batch_timeout=0.001)
        self.name = name

    def setup(self, device):
        self.session = open_session(self.name)

    def decode_request(self, request):
        return to_array(request)

    def batch(self, inputs):
        return np.concatenate(inputs)

    def predict(self, x):
        return self.session.run(None, {"x": x})[0]

    def unbatch(self, output):
        return [output[index : index + 1] for index in range(len(output))]

    def encode_response(self, output):
        return to_document(self.name, output)


if __name__ == "__main__":
    server = litserve.LitServer([Api(name) for name in NAMES], accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False, log_level="error")
