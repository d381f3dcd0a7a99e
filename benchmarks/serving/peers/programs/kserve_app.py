"""The KServe SDK: one custom model each, V2 REST, one worker."""

import os

from kserve import InferOutput, InferResponse, Model, ModelServer
from sessions import NAMES, open_session


class Onnx(Model):
    def __init__(self, name):
        super().__init__(name)
        self.session = open_session(name)
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        answer = self.session.run(None, {"x": payload.inputs[0].as_numpy()})[0]
        output = InferOutput(name="y", shape=list(answer.shape), datatype="FP32")
        output.set_data_from_numpy(answer, binary_data=False)
        return InferResponse(response_id=payload.id or "none", model_name=self.name, infer_outputs=[output])


if __name__ == "__main__":
    server = ModelServer(http_port=int(os.environ["PORT"]), workers=1, enable_grpc=False, access_log_format=None)
    server.start([Onnx(name) for name in NAMES])
