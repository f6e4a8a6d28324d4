"""The server: three wires over one completer and one scorer, on one port.

    flywright serve RUN/policy --reward RUN/reward
    app = create_app(completer, tokenizer, scorer, ServeSettings(context_tokens=512))

It binds 127.0.0.1:1424 unless told otherwise. The tokenizer counts prompts against the context and
names tokens. `/` is a page to chat with, `/health` a probe, `/metrics` for Prometheus, `/docs` and
`/openapi.json` tell of every field; the pages load nothing from elsewhere.
"""

import base64
import re
from functools import partial
from hashlib import sha256
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, Response
from starlette.middleware.cors import CORSMiddleware

from flywright.ask import Completer, Scorer
from flywright.serve import nemo_wire, openai_wire, problems, reward_wire
from flywright.serve.backend import Backend, ServeSettings
from flywright.serve.guard import Guard
from flywright.tokenizer import Tokenizer

# what every route may answer, for the OpenAPI document
_PROBLEM = {"description": "a problem", "content": {"application/json": {}}}
PAGES = {"/": "page.html", "/docs": "docs.html"}
STATUSES: dict[int | str, dict[str, object]] = {"4XX": _PROBLEM, "5XX": _PROBLEM}


def create_app(
    completer: Completer | None,
    tokenizer: Tokenizer,
    scorer: Scorer | None = None,
    settings: ServeSettings | None = None,
) -> FastAPI:
    """An ASGI app over who answers; without a scorer there are no rewards, without a completer
    nothing else."""
    backend = Backend(completer, tokenizer, scorer, settings or ServeSettings())
    app = FastAPI(title="Flywright", docs_url=None, redoc_url=None, responses=STATUSES)
    app.state.backend = backend
    problems.install(app)
    for wire in (nemo_wire, openai_wire, reward_wire):
        app.include_router(wire.router(backend))
    _install_pages(app, backend)
    known = {*app.openapi()["paths"], *PAGES}
    app.add_middleware(Guard, backend=backend, routes=known)
    if backend.settings.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(backend.settings.cors),
            allow_methods=["GET", "POST", "PUT"],
            allow_headers=["Authorization", "Content-Type"],
        )
    return app


def _install_pages(app: FastAPI, backend: Backend) -> None:
    for path, name in PAGES.items():
        html = Path(__file__).with_name(name).read_text(encoding="utf-8")
        headers = {"Content-Security-Policy": policy_of(html), "X-Content-Type-Options": "nosniff"}
        page = partial(HTMLResponse, html, headers=headers)
        app.add_route(path, lambda _request, page=page: page(), include_in_schema=False)

    @app.get("/health")
    async def health() -> dict[str, str]:
        names = {"model": backend.model_name, "reward_model": backend.reward_name}
        return {"status": "ok", **names}

    @app.get("/metrics", responses={200: {"content": {"text/plain": {}}}}, response_class=Response)
    async def metrics() -> Response:
        return Response(backend.metrics.text(), media_type="text/plain; version=0.0.4")


def policy_of(html: str) -> str:
    """A Content-Security-Policy under which the page's own script and style work, no others."""
    hashes = {}
    for kind in ("script", "style"):
        [inside] = re.findall(f"<{kind}>(.*?)</{kind}>", html, re.DOTALL)
        hashes[kind] = base64.b64encode(sha256(inside.encode()).digest()).decode()
    allowed = "".join(f"; {kind}-src 'sha256-{value}'" for kind, value in hashes.items())
    own = "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'"
    return f"{own}; form-action 'none'; frame-ancestors 'none'{allowed}"
