"""Another family's tokenizer, used as it is: tokenizer.json by `tokenizers`, its files kept.

Two doors: a raw prompt is read by the tokenizer as it is. Content is read by its twin, in which
every control token has a secret name that no text can hold, and which is the same otherwise; a
chat template's own control tokens are written by their secret names (`disguise`). Control tokens
are those flagged special and those that the chat template names.
"""

import json
import re
import secrets
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import tokenizers

from flywright.errors import UserError
from flywright.files import digest, named_disk_errors, read_json

FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja", "tokenizer.model", "vocab.json", "merges.txt"),
)
_FORMAT = "chat_format_hash.txt"
_VARIABLES = ("bos_token", "eos_token", "unk_token", "pad_token")


class Borrowed:
    """A codec over a folder's tokenizer.json. Raises UserError where it cannot be read."""

    extra_ids: tuple[int, ...] = ()

    def __init__(self, folder: Path):
        self.where = str(folder)
        found = [folder / name for name in FILES if (folder / name).is_file()]
        self._files = {path.name: path.read_bytes() for path in found}
        config = read_json(folder / "special_tokens_map.json", missing_ok=True)
        config |= read_json(folder / "tokenizer_config.json", missing_ok=True)
        self.template = self._template(config)
        self._refuse_other_template(folder / _FORMAT)
        texts = {name: _content(config.get(name)) for name in _VARIABLES}
        self.variables = {name: text for name, text in texts.items() if text is not None}
        self._full = _build(self._files["tokenizer.json"].decode("utf-8"), self.where)
        tree = read_json(folder / "tokenizer.json", missing_ok=True)
        tree["post_processor"] = None
        nonce = secrets.token_hex(8)
        control = [token for token in tree["added_tokens"] if _is_control(token, self.template)]
        self._control: dict[str, int] = {token["content"]: token["id"] for token in control}
        self._secrets = {text: f"<{nonce}.{i}>" for i, text in enumerate(self._control)}
        self._pattern = _any_of(control)
        self._twin = _build(json.dumps(_renamed(tree, self._secrets)), self.where)
        self._lead = f"<{nonce}.lead>"  # text after it is text in the middle
        self._twin.add_special_tokens([tokenizers.AddedToken(self._lead, normalized=False)])
        after = self.ids_after_control
        self._puts_space = after("\na")[-len(after("a")) :] != after("a")
        self.control_ids = frozenset(self._control.values())
        self.vocab_size = 1 + max(self._full.get_vocab(with_added_tokens=True).values())
        self.bos_id = self._token_id("bos_token")
        opens = self._full.encode("").ids[:1]
        self.opening = tuple(opens) if opens == [self.bos_id] else ()
        self.end_ids = self._ends(folder)
        self.eos_id = self.end_ids[-1]
        self.hash = digest([digest(data.hex()) for data in self._files.values()])

    def _template(self, config: dict[str, Any]) -> str:
        if "chat_template.jinja" in self._files:
            return self._files["chat_template.jinja"].decode("utf-8")
        found: str | list[dict[str, str]] = config.get("chat_template") or ""
        if isinstance(found, str):
            return found
        return {each["name"]: each["template"] for each in found}.get("default", "")

    def _refuse_other_template(self, path: Path) -> None:
        """Weights that were trained here are asked in the format that they were trained in."""
        if path.is_file() and path.read_text(encoding="utf-8").strip() != digest(self.template):
            fault = "the chat template is not the one that the weights were trained with"
            raise UserError(f"{self.where}: {fault}; put it back, or remove {_FORMAT}")

    def _token_id(self, name: str) -> int | None:
        text = self.variables.get(name)
        return None if text is None else self._full.token_to_id(text)

    @property
    def pad_id(self) -> int:
        """What fills a row up: the tokenizer's pad_token, or its eos_token."""
        return self.eos_id if (found := self._token_id("pad_token")) is None else found

    def _ends(self, folder: Path) -> tuple[int, ...]:
        """Ends that generation_config.json names, then the tokenizer's own eos_token."""
        named = read_json(folder / "generation_config.json", missing_ok=True).get("eos_token_id")
        own = self._token_id("eos_token")
        ends = [one for one in (named if isinstance(named, list) else [named]) if one != own]
        found = tuple(one for one in (*ends, own) if one is not None)
        if not found:
            raise UserError(f"{self.where}: tokenizer_config.json names no eos_token")
        return found

    def save(self, folder: Path) -> None:
        """Write the files as they were, and the template's hash beside them."""
        with named_disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for name, data in self._files.items():
                (folder / name).write_bytes(data)
            (folder / _FORMAT).write_text(digest(self.template) + "\n", encoding="utf-8")

    def encode(self, text: str) -> list[int]:
        return self._twin.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        found = self._twin.encode_batch_fast(list(texts), add_special_tokens=False)
        return [one.ids for one in found]

    def ids_after_control(self, text: str) -> list[int]:
        """Ids of text behind a control token, where some families put a space before it."""
        return self.encode(self._lead + text)[1:]

    def inner_ids(self, text: str) -> list[int]:
        """Ids of text that goes on from other text: nothing is put before it."""
        before = "\n" if self._puts_space else ""
        return self.ids_after_control(before + text)[len(self.ids_after_control(before)) :]

    def disguise(self, text: str) -> str:
        """The text with its control tokens under their secret names."""
        return self._pattern.sub(lambda found: self._secrets[found.group().strip()], text)

    def control_in(self, text: str) -> re.Match[str] | None:
        return self._pattern.search(text)

    def control_id(self, text: str) -> int:
        return self._control[text.strip()]

    def raw_ids(self, text: str, continues: bool) -> list[int]:
        """Ids with control texts parsed; after `opening` unless the text has or continues it."""
        if continues:
            return self.inner_ids(self.disguise(text))
        ids = self._full.encode(text, add_special_tokens=False).ids
        return ids if tuple(ids[: len(self.opening)]) == self.opening else [*self.opening, *ids]

    def decode(self, ids: Iterable[int]) -> str:
        return self._full.decode([int(i) for i in ids])

    def inner_text(self, ids: Iterable[int]) -> str:
        """Text of ids that stand in the middle: a space before the first word is kept."""
        before = self.encode("a")
        return self.decode([*before, *ids]).removeprefix(self.decode(before))

    def shown(self, ids: Iterable[int]) -> str:
        """Text of a rendered conversation, its control tokens' texts in it."""
        text = ""
        for is_control, group in groupby(ids, self.control_ids.__contains__):
            run = list(group)
            if is_control:
                text += "".join(self.piece(token) for token in run)
            else:
                text += self.decode(run) if self._puts_space or not text else self.inner_text(run)
        return text

    @property
    def fast_source(self) -> str:
        return self._full.to_str()

    def piece(self, token_id: int) -> str:
        return self._full.id_to_token(int(token_id)) or ""


def _build(source: str, where: str) -> tokenizers.Tokenizer:
    try:
        built = tokenizers.Tokenizer.from_str(source)
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{where}/tokenizer.json: not a tokenizer: {error}") from None
    built.no_truncation()
    built.no_padding()
    return built


def _content(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token


def _is_control(token: dict[str, Any], template: str) -> bool:
    text = token["content"]
    return token["special"] or (text in template and not text.isspace())


def _any_of(control: list[dict[str, Any]]) -> re.Pattern[str]:
    """Matches control texts, the longest first, with the space that they swallow."""
    space, ordered = r"\s*", sorted(control, key=lambda token: -len(token["content"]))
    texts = (space * t["lstrip"] + re.escape(t["content"]) + space * t["rstrip"] for t in ordered)
    return re.compile("|".join(texts) or "(?!)")


def _renamed(tree: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """The tokenizer with other names for some tokens, which no merge gives any more."""
    model = dict(tree["model"])
    new = lambda piece: names.get(piece, piece)  # noqa: E731
    if isinstance(model["vocab"], dict):
        model["vocab"] = {new(piece): index for piece, index in model["vocab"].items()}
    else:
        model["vocab"] = [[new(piece), score] for piece, score in model["vocab"]]
    if model.get("unk_token"):
        model["unk_token"] = new(model["unk_token"])
    if model.get("merges"):
        merges = (m.split(" ") if isinstance(m, str) else m for m in model["merges"])
        model["merges"] = [m for m in merges if not {*m, "".join(m)} & names.keys()]
    added = [{**token, "content": new(token["content"])} for token in tree["added_tokens"]]
    return {**tree, "model": model, "added_tokens": added}
