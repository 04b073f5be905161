"""Tables line up, and say which row is their head."""

from tfvae import tables


def test_plain_columns_begin_below_one_another():
    lines = tables.plain([("check", "result", "detail"), ("x", "ok", "a longer text"), ("signatures", "failed", "")])
    first, second, third = lines.split("\n")
    assert first.index("result") == second.index("ok") == third.index("failed") == len("signatures") + 2
    assert first.index("detail") == second.index("a longer") == first.index("result") + len("failed") + 2
    assert second == second.rstrip()


def test_markdown_has_its_rule_below_the_head():
    assert tables.markdown([["a", "b"], ["1", "2"], ["3", "4"]]).split("\n") == [
        "| a | b |", "| --- | --- |", "| 1 | 2 |", "| 3 | 4 |",
    ]  # fmt: skip
    assert tables.markdown([["a"]]).split("\n") == ["| a |", "| --- |"]
