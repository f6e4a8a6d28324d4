"""A tokenizer: a codec and the chat format that belongs to it, from a folder or trained.

`Tokenizer.load` opens ours (tokenizer.model with the chat format's tokens) and those that other
families bring: their tokenizer.json, used as it is, with their chat template.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from flywright.errors import UserError
from flywright.tokenizer.borrowed import Borrowed
from flywright.tokenizer.nemotron_chat import NemotronChat
from flywright.tokenizer.sentence_pieces import SentencePieces, train_pieces
from flywright.tokenizer.template_chat import TemplateChat


class Tokenizer:
    """Text to ids and back. Build with `train_tokenizer` or `Tokenizer.load(folder)`.

    `eos_id` ends a document, `opening` are the ids that begin one (none in ours), `control_ids`
    those that text can never become; `bos_id` is None where a family has none; `pad_id` fills rows.
    """

    def __init__(self, codec: SentencePieces | Borrowed):
        self._codec = codec
        own = isinstance(codec, SentencePieces)
        self.chat = NemotronChat(codec) if own else TemplateChat(codec)
        self.vocab_size = codec.vocab_size
        self.bos_id, self.eos_id, self.pad_id = codec.bos_id, codec.eos_id, codec.pad_id
        self.opening = codec.opening
        self.control_ids = codec.control_ids
        self.extra_ids = codec.extra_ids
        self.hash = codec.hash
        self.fast_source = "" if own else codec.fast_source  # tokenizer.json of another family

    @classmethod
    def load(cls, folder: Path | str) -> "Tokenizer":
        """From a folder. Raises UserError where it holds none or a bad one."""
        path, other = Path(folder) / "tokenizer.model", Path(folder) / "tokenizer.json"
        if not path.is_file() and not other.is_file():
            raise UserError(f"{path}: no such file, nor tokenizer.json (a tokenizer has either)")
        try:
            return cls(SentencePieces(path.read_bytes()))
        except (OSError, RuntimeError, UserError) as error:
            if not other.is_file():  # a foreign model without the chat format's tokens, or no model
                reason = error if isinstance(error, UserError) else "not a SentencePiece model"
                raise UserError(f"{path}: {reason}") from None
        return cls(Borrowed(Path(folder)))

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files; those of another family as they were, byte for byte."""
        self._codec.save(folder)

    def encode(self, text: str) -> list[int]:
        """Ids of plain text, in which a control token's text stays ordinary text."""
        return self._codec.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of many texts, on all cores."""
        return self._codec.encode_batch(texts)

    def raw_ids(self, text: str, continues: bool = False) -> list[int]:
        """Ids of a text in which control texts become control tokens; see chat.raw_ids."""
        return self._codec.raw_ids(text, continues)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; control tokens decode to nothing."""
        return self._codec.decode(ids)

    def piece(self, token_id: int) -> str:
        """The piece behind an id, as the vocabulary writes it (U+2581 is a space in ours)."""
        return self._codec.piece(token_id)

    def byte(self, token_id: int) -> bytes:
        """The byte that a piece like `<0xE6>` names; empty for every other piece."""
        piece = self.piece(token_id)
        return bytes.fromhex(piece[3:5]) if len(piece) == 6 and piece[:3] == "<0x" else b""


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train on texts (SPEC 1.4): BPE, digits split, whitespace kept, bytes for the unknown.

    Raises UserError when the text is too small for `vocab_size`.
    """
    return Tokenizer(train_pieces(texts, vocab_size))
