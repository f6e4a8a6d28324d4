"""SentencePiece tokenizer and THE chat format.

tokenizer.py trains, loads, saves, encodes and decodes; chat.py turns conversations into ids and
back; export.py writes the files that transformers reads.
"""

from flywright.tokenizer.tokenizer import Tokenizer, train_tokenizer

__all__ = ["Tokenizer", "train_tokenizer"]
