"""Builds an answer that follows drawn instructions, from what each of them asks for."""

import string

SENTENCES = {
    "de": "Der Hund und die Katze sind nicht in dem Haus und es ist sehr kalt",
    "fr": "Le chien et le chat ne sont pas dans la maison et il fait tres froid",
    "es": "El perro y el gato no estan en la casa y hace mucho frio para los dos",
    "it": "Il cane e il gatto non sono nella casa e fa molto freddo per gli altri",
}
ENGLISH = "The hill was in a town of the north and it had a bridge"


def _filler(letter):
    """Words without a letter, all of them English."""
    return [word for word in ENGLISH.split() if letter not in word.lower()] or ["so"]


def _short(args):
    """A short word that the counted letter is not in."""
    letter = args.get("keywords:letter_frequency", {}).get("letter", "")
    return "it" if letter and letter in "so" else "so"


def obedient(checks):
    """An answer that follows all of the checks together."""
    args = {check.kind: check.args for check in checks}
    has = args.get
    if "detectable_format:constrained_response" in args:
        return "My answer is maybe."
    if "detectable_format:json_format" in args:
        return '{"river": 1}'
    if "combination:two_responses" in args:
        return "One answer.\n******\nAnother answer."
    letter = has("keywords:letter_frequency", {})
    less = letter.get("let_relation") == "less than"
    words = _filler(letter["letter"]) if less else ENGLISH.split()
    sentence = " ".join(words)
    if "language:response_language" in args:
        sentence = SENTENCES[args["language:response_language"]["language"]]
    return _framed(args, _body(args, sentence, letter, less))


def _body(args, sentence, letter, less):
    has = args.get
    extra = []
    extra += has("keywords:existence", {}).get("keywords", [])
    if has("keywords:frequency", {}).get("relation") == "at least":
        extra += [args["keywords:frequency"]["keyword"]] * args["keywords:frequency"]["frequency"]
    if letter and not less:
        extra += [letter["letter"]] * letter["let_frequency"]
    capitals = has("change_case:capital_word_frequency", {})
    if capitals.get("capital_relation") == "at least":
        extra += [_short(args).upper()] * capitals["capital_frequency"]
    extra += [f"[{_short(args)}]"] * has("detectable_content:number_placeholders", {}).get(
        "num_placeholders", 0
    )
    words = has("length_constraints:number_words", {})
    base = sentence.split()
    if words.get("relation") == "at least":
        base = (base * (words["num_words"] // len(base) + 1))[: words["num_words"]]
    elif words:
        marks = 3 * ("detectable_content:postscript" in args) + ("detectable_format:title" in args)
        phrase = has("startend:end_checker", {}).get("end_phrase", "").split()
        base = base[: max(words["num_words"] - 1 - marks - len(extra) - len(phrase), 0)]
    text = " ".join([*base, *extra]) + "."
    return _shaped(args, text, f"{sentence}.")


def _shaped(args, text, another):
    has = args.get
    if "length_constraints:number_sentences" in args:
        counted = args["length_constraints:number_sentences"]
        count = counted["num_sentences"] - (counted["relation"] == "less than")
        text = " ".join([*[another] * (count - 1), text])
    if "length_constraints:number_paragraphs" in args:
        count = args["length_constraints:number_paragraphs"]["num_paragraphs"]
        text = "\n***\n".join([text] + [_short(args)] * (count - 1))
    if "length_constraints:nth_paragraph_first_word" in args:
        asked = args["length_constraints:nth_paragraph_first_word"]
        parts = [text] + [_short(args)] * (asked["num_paragraphs"] - 1)
        nth = asked["nth_paragraph"] - 1
        parts[nth] = f"{asked['first_word']} {parts[nth]}"
        text = "\n\n".join(parts)
    if "detectable_format:number_bullet_lists" in args:
        count = args["detectable_format:number_bullet_lists"]["num_bullets"]
        text = "\n".join([f"* {text}"] + [f"* {_short(args)}"] * (count - 1))
    if "detectable_format:number_highlighted_sections" in args:
        count = has("detectable_format:number_highlighted_sections")["num_highlights"]
        text += f" *{_short(args)}*" * count
    if "detectable_format:multiple_sections" in args:
        asked = args["detectable_format:multiple_sections"]
        heads = [f"{asked['section_spliter']} {n + 1}" for n in range(asked["num_sections"])]
        text = "\n".join([heads[0], text, *heads[1:]])
    return text


def _framed(args, text):
    if "detectable_format:title" in args:
        text = f"<<{_short(args)}>>\n{text}"
    if "combination:repeat_prompt" in args:
        text = f"{args['combination:repeat_prompt']['prompt_to_repeat']}\n{text}"
    if "detectable_content:postscript" in args:
        text += f"\n{args['detectable_content:postscript']['postscript_marker']}"
    if "startend:end_checker" in args:
        text += f"\n{args['startend:end_checker']['end_phrase']}"
    if "startend:quotation" in args:
        text = f'"{text}"'
    if "punctuation:no_comma" in args:
        text = text.replace(",", "")
    if "change_case:english_capital" in args:
        text = text.upper()
    if "change_case:english_lowercase" in args:
        text = text.lower()
    return text


def broken(check, answer):
    """The answer changed so that it no longer follows one check."""
    kind, args = check.kind, check.args
    words = {
        "keywords:existence": lambda: answer.lower().replace(args["keywords"][0], "x"),
        "keywords:forbidden_words": lambda: f"{answer} {args['forbidden_words'][0]}",
        "language:response_language": lambda: ENGLISH + ".",
        "length_constraints:number_paragraphs": lambda: f"{answer}\n***\nmore",
        "length_constraints:nth_paragraph_first_word": lambda: f"{answer}\n\nmore",
        "detectable_content:number_placeholders": lambda: answer.replace("[", ""),
        "detectable_content:postscript": lambda: answer.replace(".", "").replace("P", ""),
        "detectable_format:number_bullet_lists": lambda: f"{answer}\n* more",
        "detectable_format:constrained_response": lambda: "My answer is perhaps.",
        "detectable_format:number_highlighted_sections": lambda: answer.replace("*", ""),
        "detectable_format:multiple_sections": lambda: answer.lower(),
        "detectable_format:json_format": lambda: answer[1:],
        "detectable_format:title": lambda: answer.replace("<<", "<"),
        "combination:two_responses": lambda: answer.replace("******", ""),
        "combination:repeat_prompt": lambda: f"Well. {answer}",
        "startend:end_checker": lambda: f"{answer} And so on",
        "startend:quotation": lambda: answer[1:],
        "change_case:english_capital": lambda: answer + "a",
        "change_case:english_lowercase": lambda: answer + "A",
        "punctuation:no_comma": lambda: answer + ",",
    }
    if kind in words:
        return words[kind]()
    relation = next(value for name, value in args.items() if "relation" in name)
    number = next(value for name, value in args.items() if isinstance(value, int))
    more = relation == "less than"
    unit = {
        "keywords:frequency": args.get("keyword", ""),
        "keywords:letter_frequency": args.get("letter", ""),
        "length_constraints:number_sentences": "It rains.",
        "length_constraints:number_words": "so",
        "change_case:capital_word_frequency": "SO",
    }[kind]
    if more:
        return answer + f" {unit}" * number
    return "-" if kind.endswith(("number_words", "number_sentences")) else string.digits
