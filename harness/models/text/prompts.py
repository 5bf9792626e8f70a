"""The text that a model continues: its chat template, whether it ends before the answer, and how options are spelled.

A letter is read right behind the prompt. So the prompt must not end in a thought that the model is to write first, and
a letter's tokens are those that the tokenizer makes of it there, not of the letter alone.
"""

from __future__ import annotations

import json
import re
from typing import Any

from harness.api import Example
from harness.config import TemplateConfig
from harness.errors import ModelError, first_line

Spelling = tuple[int, ...]
"""The tokens that spell an option letter, in order."""

PLAIN = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
)
"""The prompt format of PaliGemma's training: its checkpoints aren't chat models and have no template."""

THINKING = re.compile(
    r"(<think>|<thinking>|<thought>|\[THINK\]|◁think▷|<seed:think>|<\|START_THINKING\|>|<\|channel>thought)\s*$"
)
"""A prompt that ends like this lets the model think before it answers."""

CLOSED_BY = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "[THINK]": "[/THINK]",
    "◁think▷": "◁/think▷",
    "<seed:think>": "</seed:think>",
}
"""What closes a thought, by what opens it. `harness.evaluation.choices` doesn't read what is between them."""

SWITCHES = ("enable_thinking", "thinking")
"""The variables by which published templates turn thinking off."""

PROBE = Example("", "", b"", "Is there a cat in the picture?", "", ("yes", "no"), 0, "", "")
"""An example whose prompt ends as every prompt does."""


def give_template(processor: Any, name: str, own: TemplateConfig | None, text: str | None) -> None:
    """Give the processor the template that its prompts are made with: `text` or its own, with the variables of `own`.

    Raises `ModelError` if there is none, if it fails, or if the model would think before it answers.
    """
    found = text or getattr(processor, "chat_template", None) or getattr(processor.tokenizer, "chat_template", None)
    if isinstance(found, dict):  # several by name
        found = found.get("default")
    if found is None and "PaliGemma" in type(processor).__name__:
        found = PLAIN
    if found is None:
        raise ModelError(f"model {name!r}: its processor has no chat template; add chat_template.jinja to the folder")
    processor.chat_template = _with(found, own.variables if own else {}, name)
    try:
        _refuse_thinking(processor, name, decided=own is not None)
    except ModelError:
        raise
    except Exception as error:  # a template may fail in any way
        raise ModelError(
            f"model {name!r}: its chat template fails on a question with one image: {first_line(error)}; expected one "
            "for messages with an image and a text: give another in the ladder's file, template = { file = "
            "'NAME.jinja' }"
        ) from None


def rendered(processor: Any, question: str, template: str | None = None, images: int = 1) -> str:
    """The full prompt of an example's text, formatted by the processor's chat template, or by another one."""
    content = [*({"type": "image"} for _ in range(images)), {"type": "text", "text": question}]
    text: str = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=False,
        **({"chat_template": template} if template else {}),
    )
    return text


def _with(template: str, variables: dict[str, bool | int | str], name: str) -> str:
    """The template with the variables set at its start: so a kept student has them too."""
    for variable in variables:
        if not variable.isidentifier() or not re.search(rf"\b{variable}\b", template):
            known = [switch for switch in SWITCHES if switch in template]
            raise ModelError(
                f"model {name!r}: template.{variable}: its chat template has no such variable; expected one that "
                f"stands in it{f', like {known[0]}' if known else ''}"
            )
    return "".join(f"{{% set {key} = {json.dumps(value)} +%}}" for key, value in variables.items()) + template


def thinking(processor: Any, name: str) -> tuple[str, tuple[str, str]]:
    """A chat template whose prompts end where a thought begins, and the signs that open and close it.

    It is the processor's own, with its switch on. Raises `ModelError` if it has none.
    """
    template: str = processor.chat_template
    for switch in SWITCHES:
        if re.search(rf"\b{switch}\b", template):
            on = _with(re.sub(rf"\{{% set {switch} = \w+ \+%\}}", "", template), {switch: True}, name)
            begun = THINKING.search(rendered(processor, PROBE.prompt(), on))
            sign = begun[1] if begun else next((sign for sign in CLOSED_BY if sign in template), "<think>")
            if sign in CLOSED_BY:
                return on + ("" if begun else f"{{{{ '{sign}\\n' }}}}"), (sign, CLOSED_BY[sign])
    raise ModelError(
        f"model {name!r}: evaluate.thinking_tokens is set, and its chat template has no switch that lets it think; "
        f"expected {' or '.join(SWITCHES)} in it, and one of {', '.join(CLOSED_BY)}: leave evaluate.thinking_tokens out"
    )


def _refuse_thinking(processor: Any, name: str, *, decided: bool) -> None:
    """Raise `ModelError` if the model thinks before it answers: its first token is no answer then.

    `decided`: the ladder's file says something about the template, so a switch that has been left alone is meant so.
    """
    template, text = processor.chat_template, rendered(processor, PROBE.prompt())
    thinks = THINKING.search(text)
    off = {
        switch: rendered(processor, PROBE.prompt(), _with(template, {switch: False}, name))
        for switch in SWITCHES
        if re.search(rf"\b{switch}\b", template)
    }
    mend = next((switch for switch, prompt in off.items() if prompt != text and not THINKING.search(prompt)), None)
    if thinks is None and (decided or mend is None):
        return
    seen = f"ends in {thinks[1]}" if thinks else f"lets it think unless {mend} is false"
    change = (
        f"template = {{ {mend} = false }} for the rung in the ladder's file"
        if mend
        else "template = { file = 'NAME.jinja' } for the rung in the ladder's file, a template that ends where the "
        "answer begins, or use the model's variant that doesn't think"
    )
    raise ModelError(
        f"model {name!r}: its prompt {seen}, so its first token is the beginning of a thought and no answer; expected "
        f"a prompt that the answer follows: set {change}"
    )


# ----------------------------------------------------------------------------------------- spellings


def spellings(tokenizer: Any, letter: str, prompt: str = "") -> list[Spelling]:
    """How the tokenizer spells the letter behind the prompt, with and without a space before it; empty if it can't.

    Single tokens if there are any: their probability needs only one forward pass. Otherwise sequences of tokens.
    """
    found = {_behind(tokenizer, prompt, text) for text in (letter, f" {letter}")}
    known = sorted(tokens for tokens in found if tokens and tokenizer.unk_token_id not in tokens)
    return [tokens for tokens in known if len(tokens) == 1] or known


def _behind(tokenizer: Any, prompt: str, text: str) -> Spelling:
    """The tokens that the text adds to the prompt's.

    Those of the text alone, if it can't be read behind the prompt: because it merges with the prompt's last token, or
    because the tokenizer keeps the letter only alone (like one that lower-cases).
    """
    alone = tuple(tokenizer.encode(text, add_special_tokens=False))
    if not prompt:
        return alone
    before, whole = (tokenizer.encode(part, add_special_tokens=False) for part in (prompt, prompt + text))
    added = whole[len(before) :]
    if not added or whole[: len(before)] != before or tokenizer.decode(added).strip() != text.strip():
        return alone
    return tuple(added)
