"""The annotators' page and its two calls: what is next, and a label.

    flywright annotate work.db --items answers.jsonl
    then open http://127.0.0.1:8001 and type a name

Blind: the browser gets neither model names nor the other annotators' labels, and which answer
stands left is drawn from annotator and item. There is no login; bind it to people you trust.
"""

from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field, ValidationError

from flywright.annotate import store
from flywright.annotate.labels import Item, label_of
from flywright.errors import UserError
from flywright.files import seed_from
from flywright.records import Comparison, fault_of

PAGE = Path(__file__).parent / "page"
Annotator = Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[\w .@-]+$")]


class Answered(BaseModel):
    """What the page sends: who, which item, and the label by the sides shown."""

    annotator: Annotator
    item: str
    label: dict[str, Any]


def sides(annotator: str, item: Item) -> dict[str, str]:
    """Which of a comparison's answers stands left and which right for this annotator."""
    names = ["chosen", "rejected"]
    if seed_from("side", annotator, item.id) % 2:
        names.reverse()
    return dict(zip(("left", "right"), names, strict=True))


def shown(annotator: str, item: Item) -> dict[str, Any]:
    """An item as the browser gets it."""
    messages = [message.model_dump() for message in item.conversation.messages]
    value = {"item": item.id, "kind": "rating", "messages": messages}
    if isinstance(item, Comparison):
        texts = {side: getattr(item, name) for side, name in sides(annotator, item).items()}
        value |= {"kind": "comparison", **texts}
    return value


def create_app(db_path: Path) -> FastAPI:
    """The page over one database file, which is made if it is not there."""
    with store.opened(db_path):
        pass  # a file that is no database is refused now, not at the first annotator
    app = FastAPI(title="Flywright annotation", docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def only_our_own_scripts(request: Request, call_next: Any) -> Response:
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = "default-src 'self'; frame-ancestors 'none'"
        return response

    @app.exception_handler(RequestValidationError)
    @app.exception_handler(ValidationError)
    async def bad_request(_request: Request, error: Any) -> JSONResponse:
        return JSONResponse({"detail": fault_of(error)}, 400)

    @app.exception_handler(UserError)
    async def broken(_request: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 500)

    @app.get("/api/next")
    def following(annotator: Annotated[Annotator, Query()]) -> dict[str, Any]:
        item, done, waiting = store.next_item(db_path, annotator)
        progress = {"done": done, "open": waiting}
        return progress if item is None else {**shown(annotator, item), **progress}

    @app.post("/api/label")
    def label(answered: Answered) -> dict[str, str]:
        item = store.item(db_path, answered.item)
        if item is None:
            raise HTTPException(404, f"no item {answered.item[:80]!r}")
        names = sides(answered.annotator, item)
        value = {names.get(key, key): part for key, part in answered.label.items()}
        store.add_label(db_path, item.id, answered.annotator, label_of(item, value))
        return {"status": "kept"}

    app.mount("/", StaticFiles(directory=PAGE, html=True))
    return app


def run(app: FastAPI, host: str = "127.0.0.1", port: int = 8001) -> None:
    """Serve the page until interrupted."""
    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False)
