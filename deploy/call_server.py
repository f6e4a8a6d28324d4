"""Ask a running server one question over NeMo's wire, as the model card's client does.

SERVER=localhost PORT=1424 python3 deploy/call_server.py ["a question"]

Standard library only: it runs where Python is. The card's own file does as well in its place.
"""

import json
import os
import sys
from urllib.request import Request, urlopen

QUESTION = "Write a poem on NVIDIA in the style of Shakespeare"
PROMPT = "<extra_id_0>System\n\n<extra_id_1>User\n{question}\n<extra_id_1>Assistant\n"
TURN = "<extra_id_1>"
ASKED = {
    "tokens_to_generate": 1024,
    "min_tokens_to_generate": 1,
    "greedy": True,
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "repetition_penalty": 1.0,
    "add_BOS": False,
    "all_probs": False,
    "end_strings": ["<|endoftext|>", TURN, "\x11", f"{TURN}User"],
}


def ask(question: str, host: str, port: int) -> str:
    """The answer, without prompt and end of turn."""
    prompt = PROMPT.format(question=question)
    body = json.dumps({"sentences": [prompt], **ASKED}).encode()
    headers = {"Content-Type": "application/json"}
    url = f"http://{host}:{port}/generate"
    with urlopen(Request(url, body, headers, method="PUT"), timeout=3600) as response:
        sentence = json.load(response)["sentences"][0]
    return sentence[len(prompt) :].removesuffix(TURN)


if __name__ == "__main__":
    where = os.environ.get("SERVER", "localhost"), int(os.environ.get("PORT", "1424"))
    print(ask(" ".join(sys.argv[1:]) or QUESTION, *where))
