"""GET /health: is the server up, what does it serve, how busy is it."""

from typing import Any

from fastapi import APIRouter

from flywright.serve.backend import Backend


def router(backend: Backend) -> APIRouter:
    """GET /health."""
    wire = APIRouter()

    @wire.get("/health")
    async def health() -> dict[str, Any]:
        return {
            "status": "ok",
            "model": backend.model_name,
            "reward_model": backend.reward_name,
            "pending": backend.gate.taken,
            "max_pending": backend.gate.places,
        }

    return wire
