"""Ray Serve: one deployment that holds all models, one replica."""

import os

import ray
from ray import serve
from sessions import NAMES, open_session, to_array, to_document


@serve.deployment(num_replicas=1, max_ongoing_requests=256)
class Models:
    def __init__(self):
        self.sessions = {name: open_session(name) for name in NAMES}

    async def __call__(self, request):
        name = request.url.path.strip("/")
        return to_document(name, self.sessions[name].run(None, {"x": to_array(await request.json())})[0])


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    serve.run(Models.bind(), blocking=True)
