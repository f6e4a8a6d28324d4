"""`flywright import`: a .nemo to a weights folder with its tokenizer (SPEC 12.2).

import_nemo(Path("Nemotron-4-340B-Instruct.nemo"), Path("instruct"))
"""

from pathlib import Path

from flywright.errors import UserError
from flywright.files import atomic_folder, refuse_filled
from flywright.model.nemo import Nemo, open_nemo
from flywright.recipe.console import Teller
from flywright.tokenizer import Tokenizer
from flywright.tokenizer.chat import end_ids


def import_nemo(source: Path, out: Path) -> str:
    """Write the folder `out` from a .nemo file or unpacked folder; one line of what was done.

    `out` appears when it is whole; beside it OUT.log. Raises UserError for an `out` that holds
    something, and for what is not the .nemo of a Nemotron decoder.
    """
    refuse_filled(out)
    if not source.exists():
        raise UserError(f"{source}: no such .nemo file or folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        open_nemo(source) as nemo,
        Teller(out.with_name(f"{out.name}.log")) as teller,
        atomic_folder(out) as folder,
    ):
        tokenizer, note = _tokenizer(nemo, folder)
        ends = end_ids(tokenizer) if tokenizer is not None and not nemo.is_reward else ()
        nemo.write_weights(folder, ends, tick=teller.begin("import"))
    kind = "reward model" if nemo.is_reward else "language model"
    return f"{out}: {kind}, {nemo.spec.parameters:,} parameters{note}"


def _tokenizer(nemo: Nemo, folder: Path) -> tuple[Tokenizer | None, str]:
    """The tokenizer, saved into `folder`; or None and why the folder goes without one.

    The weights are whole either way. Raises UserError for more pieces than the embedding has rows.
    """
    pieces, path = nemo.tokenizer_file(), folder / "tokenizer.model"
    if pieces is None:
        return None, "; no tokenizer: the config names no SentencePiece file of the archive"
    path.write_bytes(pieces)
    try:
        tokenizer = Tokenizer.load(folder)
    except UserError as error:
        path.unlink()
        return None, f"; no tokenizer: {str(error).removeprefix(f'{path}: ')}"
    if tokenizer.vocab_size > nemo.spec.vocab_size:
        line = f"{tokenizer.vocab_size} pieces, the embedding only {nemo.spec.vocab_size} rows"
        raise UserError(f"{nemo.where}: its tokenizer has {line}")
    tokenizer.save(folder)
    return tokenizer, ""
