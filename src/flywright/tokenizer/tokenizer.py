"""A SentencePiece BPE tokenizer as Nemotron's: digits split, whitespace kept, byte fallback.

Two doors (HOUSE 8): `encode` takes plain text and can never give a control token; `control_id`
names the control tokens, which only chat.py puts into a sequence. A newline is always a piece of
its own, so that no merge crosses the borders of the chat format.
"""

import io
from collections.abc import Iterable
from pathlib import Path

import sentencepiece

from flywright.errors import UserError
from flywright.files import digest, named_disk_errors
from flywright.tokenizer.export import write_fast_tokenizer

UNK, PAD, BOS, EOS = "<unk>", "<pad>", "<s>", "</s>"
EXTRA_IDS = ("<extra_id_0>", "<extra_id_1>", "<extra_id_2>")
CONTROL_TEXTS = (BOS, EOS, *EXTRA_IDS)


class Tokenizer:
    """Text to ids and back. Build with `train_tokenizer` or `Tokenizer.load(folder)`."""

    def __init__(self, model_proto: bytes):
        self._proto = model_proto
        self._model = sentencepiece.SentencePieceProcessor(model_proto=model_proto)
        self.vocab_size: int = self._model.get_piece_size()
        self.bos_id = self.control_id(BOS)
        self.eos_id = self.control_id(EOS)
        self.extra_ids = tuple(self.control_id(text) for text in EXTRA_IDS)
        self.hash = digest(model_proto.hex())

    @classmethod
    def load(cls, folder: Path | str) -> "Tokenizer":
        """From a folder that holds tokenizer.model. Raises UserError where it is missing or bad."""
        path = Path(folder) / "tokenizer.model"
        if not path.is_file():
            raise UserError(f"{path}: no such file (a tokenizer folder holds tokenizer.model)")
        try:
            return cls(path.read_bytes())
        except RuntimeError:
            raise UserError(f"{path}: not a SentencePiece model") from None
        except UserError as error:  # a foreign model without the chat format's tokens
            raise UserError(f"{path}: {error}") from None

    def save(self, folder: Path) -> None:
        """Write tokenizer.model, tokenizer.json, tokenizer_config.json and the chat template."""
        with named_disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "tokenizer.model").write_bytes(self._proto)
            write_fast_tokenizer(self._model, folder, EXTRA_IDS)

    def control_id(self, text: str) -> int:
        """Id of a control token such as `<extra_id_1>`. Raises UserError if the model lacks it."""
        found = self._model.piece_to_id(text)
        if self._model.id_to_piece(found) != text:
            raise UserError(f"the tokenizer has no control token {text!r}")
        return found

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; a literal `<extra_id_1>` in it stays ordinary text."""
        return self._model.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; control tokens decode to nothing."""
        return self._model.decode([int(i) for i in ids])

    def piece(self, token_id: int) -> str:
        """The piece behind an id, with U+2581 for a space."""
        return self._model.id_to_piece(int(token_id))


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train on texts (SPEC 1.4): BPE, digits split, whitespace kept, bytes for the unknown.

    Raises UserError when the text is too small for `vocab_size`.
    """
    buffer = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=buffer,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=0.9999,
            byte_fallback=True,
            split_digits=True,
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            normalization_rule_name="identity",
            allow_whitespace_only_pieces=True,
            user_defined_symbols=["\n"],
            control_symbols=list(EXTRA_IDS),
            unk_id=0,
            pad_id=1,
            bos_id=2,
            eos_id=3,
            unk_piece=UNK,
            pad_piece=PAD,
            bos_piece=BOS,
            eos_piece=EOS,
            max_sentence_length=1 << 20,
            num_threads=2,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"tokenizer of {vocab_size} pieces: cannot train: {reason}") from None
    return Tokenizer(buffer.getvalue())
