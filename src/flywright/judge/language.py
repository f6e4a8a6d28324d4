"""Which language a text is in: by script, then by the commonest words. Thin on purpose.

Good for telling the languages of IFEval apart in a sentence or more, not for single words: a text
in Latin letters without any word from the lists has no known language.
"""

import re
from collections import Counter

# Letters that settle the language alone, or (several codes) the lists of words to look in.
SCRIPTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"[\u3040-\u30ff]", ("ja",)),
    (r"[\uac00-\ud7af\u1100-\u11ff]", ("ko",)),
    (r"[\u4e00-\u9fff]", ("zh",)),
    (r"[\u0e00-\u0e7f]", ("th",)),
    (r"[\u0a80-\u0aff]", ("gu",)),
    (r"[\u0a00-\u0a7f]", ("pa",)),
    (r"[\u0980-\u09ff]", ("bn",)),
    (r"[\u0b80-\u0bff]", ("ta",)),
    (r"[\u0c00-\u0c7f]", ("te",)),
    (r"[\u0c80-\u0cff]", ("kn",)),
    (r"[\u0d00-\u0d7f]", ("ml",)),
    (r"[\u0370-\u03ff]", ("el",)),
    (r"[\u0590-\u05ff]", ("he",)),
    (r"[\u0900-\u097f]", ("hi", "mr", "ne")),
    (r"[\u0600-\u06ff]", ("ar", "fa", "ur")),
    (r"[\u0400-\u04ff]", ("ru", "bg", "uk")),
)
LATIN = ("en", "de", "fr", "es", "it", "pt", "nl", "sw", "vi", "fi", "pl", "tr", "sv", "ro", "id")

WORDS = {
    "en": "the of and to in is that it for was with as his on be at by had are this have from or an"
    " but not you we they which were their has would what will there if can all her she he my your"
    " i do does how when who them its so no yes",
    "de": "der die und das ist nicht ein eine zu den mit von sich auf für dem des im auch es an als"
    " wie er sie ich wir aber hat sind war bei nach wird einen einem oder nur ihr",
    "fr": "le la les des et est un une du dans que qui pour pas sur il elle nous vous au avec ce"
    " cette son sa ses ne je par plus sont été mais ou aux être fait",
    "es": "el la los las de y es un una en que por para con no del se lo su al como más pero sus"
    " está son fue muy ha hay también yo este esta",
    "it": "il lo la gli le di e è un una che per non con del della dei in si da sono come più anche"
    " ma al nel questo questa ha alla nella io loro",
    "pt": "o os a as de e é um uma que para não com do da dos das em no na se por mais como mas ao"
    " ele ela são foi você eu muito também seu sua",
    "nl": "de het een en van is dat niet in op te zijn voor met die aan er om ook als maar bij naar"
    " wordt ik je hij wij zij heeft deze",
    "sw": "na ya wa kwa ni katika la za cha kama hii huo au yake lakini pia watu sana kuwa hiyo ili"
    " mimi yangu wewe siku moja kila",
    "vi": "và của là không có một được cho trong người các những với này để khi đã tôi bạn thì như"
    " ở từ về nhiều",
    "fi": "ja on ei että se hän oli mutta kun myös tai niin ovat kuin joka minä sinä me tämä jos"
    " voi sen hyvin olla",
    "pl": "i w na się nie z do to że jest o jak po co tak za od ale przez dla czy ma są był być",
    "tr": "ve bir bu da için ile çok daha gibi olan olarak ne var değil ben sen o en kadar ama her",
    "sv": "och i att det som en på är av för med den till inte har de ett om jag du var men sig",
    "ro": "și de la în nu a cu pe un o este că din sunt mai pentru care au fost ce dar el ea",
    "id": "yang dan di itu dengan untuk tidak ini dari dalam akan pada juga saya ke karena ada",
    "hi": "है और के का की में से को यह नहीं हैं पर था एक भी हो वह थी थे लिए कर",
    "mr": "आहे आणि च्या ते या हे मी नाही एक होते आहेत त्या तर ही होता असे केले काही",
    "ne": "छ र को मा हो यो छन् लागि भएको पनि गर्न एक छैन तर हुन्छ थियो गरेको म",
    "ar": "في من على إلى أن هذا هذه التي الذي كان مع عن لا ما هو هي كل أو قد بعد",
    "fa": "و در به از که این است را با برای آن یک می تا ها من هم بود شده ما",
    "ur": "ہے اور کے کا کی میں سے کو یہ نہیں ہیں پر تھا ایک بھی ہو وہ نے لیے کر",
    "ru": "и в не на что он с как это но по из у я за так от же для вы мы она они все был",
    "bg": "и на да се в е за от не са с по това като че ще му но при или съм бъде много",
    "uk": "і в не на що з як це до та за у від для є він але ми вони про її бути також",
}
_LISTS = {code: frozenset(words.split()) for code, words in WORDS.items()}
_OWN_LETTERS = {
    "ur": "ٹڈڑےھںہ",
    "fa": "پچژگک",
    "uk": "іїєґ",
    "ru": "ыэё",
    "bg": "ъ",
    "vi": "ạảấầệộợựừđơư",
}


def _by_words(text: str, codes: tuple[str, ...]) -> str:
    counts = Counter(re.findall(r"[^\W\d_]+(?:[\u0900-\u0dff]+)?", text, re.UNICODE))
    if codes == SCRIPTS[13][1]:  # vowel signs split words for \w; blanks do not
        counts = Counter(re.split(r"[\s।,.!?]+", text))
    scores = {
        code: sum(n for word, n in counts.items() if word in _LISTS[code])
        + 0.5 * sum(text.count(letter) for letter in _OWN_LETTERS.get(code, ""))
        for code in codes
    }
    best = max(codes, key=lambda code: scores[code])  # the first of equals
    return best if scores[best] > 0 else ""


def has_letters(text: str) -> bool:
    """True if there is anything to tell a language from."""
    return any(character.isalpha() for character in text)


def detect(text: str) -> str:
    """ISO 639-1 code of the text's language, or "" where it cannot be told."""
    letters = sum(character.isalpha() for character in text)
    lowered = text[:20_000].lower()
    for pattern, codes in SCRIPTS:
        if len(re.findall(pattern, lowered)) * 3 > min(letters, 20_000):
            return codes[0] if len(codes) == 1 else _by_words(lowered, codes) or codes[0]
    return _by_words(lowered, LATIN)
