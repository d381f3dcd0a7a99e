"""What most people write by hand: FastAPI, orjson, one onnxruntime call in the handler."""

import orjson
from fastapi import FastAPI, Request, Response
from sessions import NAMES, open_session, to_array, to_document

app = FastAPI()
sessions = {name: open_session(name) for name in NAMES}


@app.post("/{name}")
async def infer(name: str, request: Request):
    answer = sessions[name].run(None, {"x": to_array(orjson.loads(await request.body()))})[0]
    return Response(orjson.dumps(to_document(name, answer)), media_type="application/json")
