"""What the page says has changed in a prompt."""

from dspyui.domain.compiles import ChatMessage
from dspyui.ui.prompt_diff import DiffLine, diff_prompts


def prompt(*messages: tuple[str, str]) -> tuple[ChatMessage, ...]:
    return tuple(ChatMessage(role=role, content=content) for role, content in messages)


SYSTEM = "You get fields.\nAnswer in JSON.\nCopy the product."


def test_equal_prompts_are_folded_into_one_line() -> None:
    same = prompt(("system", SYSTEM), ("user", "a lamp"))
    assert diff_prompts(same, same) == [DiffLine("folded", count=6)]


def test_demonstrations_are_added_lines_between_what_stayed() -> None:
    before = prompt(("system", SYSTEM), ("user", "a lamp"))
    after = prompt(("system", SYSTEM), ("user", "a kettle"), ("assistant", "kettle"), ("user", "a lamp"))
    assert diff_prompts(before, after) == [
        DiffLine("folded", count=2),
        DiffLine("same", "Answer in JSON."),
        DiffLine("same", "Copy the product."),
        DiffLine("added", "[user]"),
        DiffLine("added", "a kettle"),
        DiffLine("added", "[assistant]"),
        DiffLine("added", "kettle"),
        DiffLine("same", "[user]"),
        DiffLine("same", "a lamp"),
    ]


def test_a_changed_instruction_shows_the_old_line_and_the_new_one() -> None:
    before = prompt(("system", SYSTEM))
    after = prompt(("system", SYSTEM.replace("Copy the product.", "Name the product.")))
    assert diff_prompts(before, after)[-2:] == [
        DiffLine("removed", "Copy the product."),
        DiffLine("added", "Name the product."),
    ]


def test_the_same_words_in_another_role_are_a_change() -> None:
    found = diff_prompts(prompt(("user", "hello")), prompt(("assistant", "hello")))
    assert [line.kind for line in found] == ["removed", "removed", "added", "added"]


def test_every_line_of_the_new_prompt_is_shown_or_counted() -> None:
    before = prompt(("system", "\n".join(f"line {n}" for n in range(50))))
    after = prompt(("system", "\n".join(f"line {n}" if n % 9 else f"other {n}" for n in range(50))))
    found = diff_prompts(before, after)
    assert sum(line.count for line in found if line.kind != "removed") == 51
