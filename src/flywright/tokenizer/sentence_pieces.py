"""A SentencePiece BPE codec as Nemotron's: digits split, whitespace kept, byte fallback (SPEC 1.4).

Two doors (HOUSE 8): `encode` takes plain text and can never give a control token; `raw_ids` parses
their texts. A newline is always a piece of its own, so that no merge crosses the borders of the
chat format.
"""

import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import sentencepiece

from flywright.errors import UserError
from flywright.files import digest, named_disk_errors
from flywright.tokenizer.export import write_fast_tokenizer

UNK, PAD, BOS, EOS = "<unk>", "<pad>", "<s>", "</s>"
EXTRA_IDS = ("<extra_id_0>", "<extra_id_1>", "<extra_id_2>")
CONTROL_TEXTS = (BOS, EOS, *EXTRA_IDS)
_CONTROL = re.compile("(" + "|".join(re.escape(text) for text in CONTROL_TEXTS) + ")")
_LONGEST_CHARACTERS = 1 << 18  # SentencePiece leaves out what is longer than 1 MiB


class SentencePieces:
    """Text to ids and back by a model that has the control tokens of our chat format."""

    opening: tuple[int, ...] = ()  # documents end with eos, none begins with bos (HOUSE 8)

    def __init__(self, model_proto: bytes):
        self._proto = model_proto
        self._model = sentencepiece.SentencePieceProcessor(model_proto=model_proto)
        self.vocab_size: int = self._model.get_piece_size()
        self.bos_id = self._control_id(BOS)
        self.eos_id = self._control_id(EOS)
        self.pad_id = self._model.pad_id() if self._model.pad_id() >= 0 else self.eos_id
        self.extra_ids = tuple(self._control_id(text) for text in EXTRA_IDS)
        self.control_ids = frozenset((self.bos_id, self.eos_id, *self.extra_ids))
        self.hash = digest(model_proto.hex())

    def save(self, folder: Path) -> None:
        """Write tokenizer.model, tokenizer.json, tokenizer_config.json and the chat template."""
        with named_disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "tokenizer.model").write_bytes(self._proto)
            write_fast_tokenizer(self._model, folder, EXTRA_IDS)

    def _control_id(self, text: str) -> int:
        found = self._model.piece_to_id(text)
        if self._model.id_to_piece(found) != text:
            raise UserError(f"the tokenizer has no control token {text!r}")
        return found

    def encode(self, text: str) -> list[int]:
        return self._model.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self._model.encode(list(texts), num_threads=os.cpu_count() or 1)

    def raw_ids(self, text: str, continues: bool) -> list[int]:
        """Ids of a text in which control texts become control tokens."""
        ids: list[int] = []
        for part in _CONTROL.split(text):
            if part in CONTROL_TEXTS:
                ids.append(self._control_id(part))
            elif part:
                ids += self.encode(part)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        return self._model.decode([int(i) for i in ids])

    def piece(self, token_id: int) -> str:
        return self._model.id_to_piece(int(token_id))


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    """Texts; a very long one by its lines, across which no piece goes anyway."""
    for text in texts:
        yield from [text] if len(text) <= _LONGEST_CHARACTERS else io.StringIO(text, newline="\n")


def train_pieces(texts: Iterable[str], vocab_size: int) -> SentencePieces:
    """Train on texts. Raises UserError when they are too little for `vocab_size`."""
    buffer = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(texts),
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
        reason = str(error).strip().splitlines()[-1].rpartition("] ")[2]  # without the check's code
        raise UserError(f"tokenizer of {vocab_size} pieces: cannot train: {reason}") from None
    return SentencePieces(buffer.getvalue())
