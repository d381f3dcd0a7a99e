"""MLServer: a custom runtime over onnxruntime, in the listening process (its fastest way)."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse
from sessions import open_session


class Onnx(MLModel):
    async def load(self):
        self.session = open_session(self.name)
        return True

    async def predict(self, payload):
        answer = self.session.run(None, {"x": NumpyCodec.decode_input(payload.inputs[0])})[0]
        return InferenceResponse(
            model_name=self.name, id=payload.id, outputs=[NumpyCodec.encode_output(name="y", payload=answer)]
        )
