"""The tokenizer in the files that transformers reads: tokenizer.json, its config, chat template.

Loading a tokenizer.model through transformers' own conversion gives wrong ids for models without a
dummy prefix, so tokenizer.json is built here, piece by piece, and tested against SentencePiece.
"""

from pathlib import Path

import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers

from flywright.files import digest, write_json

# one line: a newline in the template would be one in the prompt
CHAT_TEMPLATE = "".join(
    Path(__file__).with_name("chat_template.jinja").read_text(encoding="utf-8").splitlines()
)
CHAT_HASH = digest(CHAT_TEMPLATE)


def _merges(
    model: sentencepiece.SentencePieceProcessor, vocabulary: dict[str, int]
) -> list[tuple[str, str]]:
    """Every in-vocabulary split of each normal piece, ordered by piece score, then part ids."""
    ranked: list[tuple[float, int, int, tuple[str, str]]] = []
    for piece, index in vocabulary.items():
        special = model.is_control(index) or model.is_byte(index) or model.is_unknown(index)
        if special or piece == "\n":
            continue
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocabulary and right in vocabulary:
                score = -model.get_score(index)
                ranked.append((score, vocabulary[left], vocabulary[right], (left, right)))
    return [parts for *_, parts in sorted(ranked)]


def write_fast_tokenizer(
    model: sentencepiece.SentencePieceProcessor, folder: Path, extra_ids: tuple[str, ...]
) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja into `folder`."""
    vocabulary = {model.id_to_piece(i): i for i in range(model.get_piece_size())}
    fast = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=_merges(model, vocabulary),
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    fast.normalizer = normalizers.Replace(" ", "▁")
    fast.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    controls = ("<unk>", "<pad>", "<s>", "</s>")
    fast.add_special_tokens([tokenizers.AddedToken(t, normalized=False) for t in controls])
    fast.add_tokens([tokenizers.AddedToken(t, normalized=False, special=False) for t in extra_ids])
    fast.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "chat_format_hash": CHAT_HASH,
    }
    write_json(folder / "tokenizer_config.json", config)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
