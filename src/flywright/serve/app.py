"""The server: three wires over one completer and one scorer, on one port.

    flywright serve RUN/policy --reward RUN/reward
    app = create_app(completer, tokenizer, scorer, ServeSettings(context_tokens=512))

It binds 127.0.0.1:1424 unless told otherwise. The tokenizer counts prompts against the context and
names tokens on the NeMo wire.
"""

import uvicorn
from fastapi import FastAPI

from flywright.ask import Completer, Scorer
from flywright.serve import nemo_wire, openai_wire, problems, reward_wire
from flywright.serve.backend import Backend, ServeSettings
from flywright.tokenizer import Tokenizer


def create_app(
    completer: Completer,
    tokenizer: Tokenizer,
    scorer: Scorer | None = None,
    settings: ServeSettings | None = None,
) -> FastAPI:
    """An ASGI app over who answers; without a scorer there are no rewards."""
    backend = Backend(completer, tokenizer, scorer, settings or ServeSettings())
    app = FastAPI(title="Flywright", docs_url="/docs", redoc_url=None)
    problems.install(app)
    for wire in (nemo_wire, openai_wire, reward_wire):
        app.include_router(wire.router(backend))

    @app.get("/health")
    async def health() -> dict[str, str]:
        names = {"model": backend.model_name, "reward_model": backend.reward_name}
        return {"status": "ok", **names}

    return app


def run(app: FastAPI, host: str = "127.0.0.1", port: int = 1424) -> None:
    """Serve until interrupted; SIGTERM lets the answers under way finish. Access is not logged."""
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=30,
        h11_max_incomplete_event_size=64 << 10,
        timeout_keep_alive=30,
    )
