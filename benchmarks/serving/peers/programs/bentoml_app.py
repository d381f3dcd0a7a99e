"""BentoML: one service with an API a model, in one worker."""

import bentoml
from sessions import open_session, to_array, to_document


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Models:
    def __init__(self):
        self.sessions = {name: open_session(name) for name in ("s", "m", "r")}

    def answer(self, name, inputs):
        return to_document(name, self.sessions[name].run(None, {"x": to_array({"inputs": inputs})})[0])

    @bentoml.api(route="/s")
    async def s(self, inputs: list[dict]) -> dict:
        return self.answer("s", inputs)

    @bentoml.api(route="/m")
    async def m(self, inputs: list[dict]) -> dict:
        return self.answer("m", inputs)

    @bentoml.api(route="/r")
    async def r(self, inputs: list[dict]) -> dict:
        return self.answer("r", inputs)
