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
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flywright.annotate import store
from flywright.annotate.labels import Item, PairLabel, RatingLabel
from flywright.errors import UserError
from flywright.files import seed_from

PAGE = Path(__file__).parent / "page"
Annotator = Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[\w .@-]+$")]


class Answered(BaseModel):
    """What the page sends: who, which item, and the label in the order shown."""

    model_config = ConfigDict(extra="forbid")

    annotator: Annotator
    item: str
    label: dict[str, Any]


def swapped(annotator: str, item: Item) -> bool:
    """True if this annotator sees the second answer on the left."""
    return seed_from("side", annotator, item.id) % 2 == 1


def shown(annotator: str, item: Item) -> dict[str, Any]:
    """An item as the browser gets it."""
    messages = [{"role": m.role, "content": m.content} for m in item.conversation.messages]
    value = {"item": item.id, "kind": item.kind, "messages": messages}
    if item.kind == "comparison":
        sides = (item.first, item.second)
        left, right = reversed(sides) if swapped(annotator, item) else sides
        value |= {"left": left, "right": right}
    return value


def label_of(annotator: str, item: Item, label: dict[str, Any]) -> RatingLabel | PairLabel:
    """The label in the item's own order. Raises pydantic's ValidationError."""
    if item.kind == "rating":
        return RatingLabel.model_validate(label)
    sides = {"left": "first", "right": "second"}
    pair = PairLabel.model_validate({sides.get(key, key): value for key, value in label.items()})
    return pair.swapped() if swapped(annotator, item) else pair


def _reason(errors: Any) -> str:
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}".removeprefix(": ").replace("Value error, ", "")


def create_app(db_path: Path) -> FastAPI:
    """The page over one database file, which is made if it is not there."""
    with store.opened(db_path):
        pass  # a file that is no database is refused now, not at the first annotator
    app = FastAPI(title="Flywright annotation", docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def only_our_own_scripts(request: Request, call_next: Any) -> Response:
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = "default-src 'self'; frame-ancestors 'none'"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    @app.exception_handler(RequestValidationError)
    async def bad_request(_request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": _reason(error.errors())}, 400)

    @app.exception_handler(HTTPException)
    async def refused(_request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code)

    @app.exception_handler(UserError)
    async def broken(_request: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 500)

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @app.get("/page.css")
    def style() -> FileResponse:
        return FileResponse(PAGE / "page.css")

    @app.get("/page.js")
    def script() -> FileResponse:
        return FileResponse(PAGE / "page.js")

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
        try:
            given = label_of(answered.annotator, item, answered.label)
        except ValidationError as error:
            raise HTTPException(400, _reason(error.errors())) from None
        store.add_label(db_path, item.id, answered.annotator, given)
        return {"status": "kept"}

    return app


def run(app: FastAPI, host: str = "127.0.0.1", port: int = 8001) -> None:
    """Serve the page until interrupted."""
    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False)
