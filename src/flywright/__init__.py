"""Flywright: the Nemotron-4 alignment recipe, from text to a served and evaluated model.

    from flywright import load, Engine
    model, tokenizer = load("runs/mine/policy")
    Engine("runs/mine/policy").generate(["Hello"], max_new_tokens=20)

Both names are imported when they are first used: importing this package does not import torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flywright.generate import Engine

__all__ = ["Engine", "load"]
__version__ = "0.1.0"


def load(folder: str) -> tuple[Any, Any]:
    """(model, tokenizer) of a weights folder; the tokenizer is None where the folder has none.

    `model(ids_BT)` gives logits [B, T, V], or for a reward folder attributes [B, 5].
    Raises UserError for a folder that is not one.
    """
    from pathlib import Path

    from flywright import model
    from flywright.tokenizer import Tokenizer

    has_tokenizer = any((Path(folder) / f"tokenizer.{end}").is_file() for end in ("model", "json"))
    return model.load(folder), Tokenizer.load(folder) if has_tokenizer else None


def __getattr__(name: str) -> Any:
    if name == "Engine":
        from flywright.generate import Engine

        return Engine
    raise AttributeError(f"module 'flywright' has no attribute {name!r}")
