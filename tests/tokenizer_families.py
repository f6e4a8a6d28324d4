"""Small tokenizers and chat templates in the shape of other families', for tests.

`write_family(name, folder)` trains a vocabulary of a few hundred pieces and writes the files that
such a model's folder holds. The templates are short versions of the formats, not the families' own.
"""

import json
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

TEXT = [
    "The quick brown fox jumps over the lazy dog.\nAnd 12 more foxes follow 345 dogs.\n\n",
    "system user assistant Instruction answer: yes, no. Hello there!\n",
    "<|im_start|> [INST] <<SYS>> <|user|> </s> words that look like marks\n",
    "Der Hund ist braun. El perro corre. Le chien dort. Привет, 世界",
] * 8
WORDS = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+")
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content"
    " + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}"
    "{{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}{% endif %}"
)
LLAMA3 = """\
{{ bos_token }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}
{{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""
LLAMA2 = """\
{%- set ns = namespace(system='') %}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {%- set ns.system = '<<SYS>>\n' ~ message.content ~ '\n<</SYS>>\n\n' %}
    {%- elif message.role == 'user' %}
        {{- bos_token + '[INST] ' + (ns.system + message.content).strip() + ' [/INST]' }}
        {%- set ns.system = '' %}
    {%- else %}
        {{- ' ' + message.content.strip() + ' ' + eos_token }}
    {%- endif %}
{%- endfor %}
"""
MISTRAL = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must be user, assistant, user, ...') }}
    {%- endif %}
    {%- if message.role == 'user' %}
        {{- '[INST] ' + message.content + ' [/INST]' }}
    {%- else %}
        {%- generation %}{{- ' ' + message.content + eos_token }}{%- endgeneration %}
    {%- endif %}
{%- endfor %}
"""
ZEPHYR = (
    "{% for message in messages %}{{ '<|' + message.role + '|>\n' + message.content + eos_token"
    " + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
THINKING = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' }}
    {%- if message.role == 'assistant' %}
        {%- set words = message.content.split('</think>')[-1] %}
        {%- if loop.last %}
            {{- '<think>\n\n</think>\n\n' }}
        {%- endif %}
        {{- words + '<|im_end|>\n' }}
    {%- else %}
        {{- message.content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
"""
# name: template, vocabulary, control tokens, (bos, eos)
FAMILIES = {
    "chatml": (CHATML, "bytes", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], (None, 0)),
    "qwen2": (
        DEFAULT_SYSTEM + CHATML,
        "bytes",
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        (None, 0),
    ),
    "qwen3": (THINKING, "bytes", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], (None, 0)),
    "llama3": (
        LLAMA3,
        "bytes",
        [
            *("<|begin_of_text|>", "<|end_of_text|>"),
            *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        ],
        (0, 1),
    ),
    "llama2": (LLAMA2, "pieces", ["<unk>", "<s>", "</s>"], (1, 2)),
    "mistral": (MISTRAL, "pieces", ["<unk>", "<s>", "</s>"], (1, 2)),
    "mistral_marks": (
        MISTRAL,
        "first",
        ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"],
        (1, 2),
    ),
    "zephyr": (ZEPHYR, "pieces", ["<unk>", "<s>", "</s>"], (1, 2)),
}


def byte_level(control: list[str]) -> Tokenizer:
    """Byte-level BPE as in Llama 3 and Qwen."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(WORDS, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(vocab_size=450, initial_alphabet=alphabet, show_progress=False),
    )
    made.add_special_tokens([AddedToken(text, normalized=False) for text in control])
    if control[0] == "<|begin_of_text|>":
        pair = (control[0], made.token_to_id(control[0]))
        made.post_processor = processors.TemplateProcessing(f"{pair[0]} $A", None, [pair])
    return made


def piece_level(control: list[str], prepends_always: bool) -> Tokenizer:
    """BPE over pieces with U+2581 and bytes for the unknown, as in Llama 2 and Mistral."""
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    byte_pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    made.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=620, special_tokens=[*control, *byte_pieces], show_progress=False
        ),
    )
    tree = json.loads(made.to_str())
    tree["model"]["byte_fallback"] = True
    tree["added_tokens"] = tree["added_tokens"][: len(control)]
    made = Tokenizer.from_str(json.dumps(tree))
    if prepends_always:
        steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        made.normalizer, made.pre_tokenizer = normalizers.Sequence(steps), None  # type: ignore
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)])
    made.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 1)])
    return made


def write_family(name: str, folder: Path, template: str = "") -> Path:
    """The files of a model folder of this family, under another template if one is given."""
    own, kind, control, (bos, eos) = FAMILIES[name]
    made = byte_level(control) if kind == "bytes" else piece_level(control, kind == "pieces")
    if name == "qwen3":
        made.add_tokens([AddedToken(text, normalized=False) for text in ("<think>", "</think>")])
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None if bos is None else control[bos],
        "eos_token": control[eos],
        "clean_up_tokenization_spaces": False,
        "chat_template": template or own,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
