"""Guesses of what comes next, from what the text said before (prompt lookup decoding, Saxena 2023).

The last few tokens are looked for earlier in the text; what followed them there is the guess. All
guesses are drawn in the same step as the next token, and kept as far as the draws agree: the answer
is the same, in fewer steps.
"""

_LONGEST, _SHORTEST = 4, 2  # tokens that have to agree


def guess(ids: list[int], most: int) -> list[int]:
    """Up to `most` tokens that may follow; none if the end of the text is new."""
    for size in range(min(_LONGEST, len(ids) - 1), _SHORTEST - 1, -1):
        tail = ids[-size:]
        for start in range(len(ids) - size - 1, -1, -1):
            if ids[start] == tail[0] and ids[start : start + size] == tail:
                return ids[start + size : start + size + most]
    return []
