"""How commands read words and print help, both from the table in ``sslight.config``."""

import textwrap
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from sslight.cli.completion import complete
from sslight.cli.terminal import as_typed
from sslight.config import COMMANDS, FIRST_WORDS, Explanation, explain, usage
from sslight.config.explain import fields_of
from sslight.config.schema.fields import Section, choices

Words = Annotated[list[str] | None, typer.Argument(autocompletion=complete)]
_WIDTH, _NAMES = 80, 23
_FIRST_STEPS = ("pretrain", "evaluate", "export")


class OneCommand(TyperCommand):
    """A command whose help comes from its entry in the table: usage, first words, main settings, examples."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """See typer."""
        name = ctx.command_path.removeprefix("sslight ")
        forms = [each for each in (name, f"{name} detect") if each in COMMANDS]
        formatter.write(f"Usage: {usage(name)}\n")
        _write_paragraphs(formatter, str(self.help))
        formatter.write("\n")
        for word in COMMANDS[name].first:
            _write_row(formatter, word.strip("[]"), FIRST_WORDS[word.strip("[]")])
        for each in forms:
            formatter.write("\n" if COMMANDS[each].main else "")
            kinds = COMMANDS[each].kinds
            for key in COMMANDS[each].main:
                _write_row(formatter, key, _in_short(key, *kinds))
            if kinds and len(fields_of(*kinds)) > len(COMMANDS[each].main):
                lister, one = (
                    kinds[-1].explained_by.format(key="").rstrip(" ."),
                    kinds[-1].explained_by.format(key="KEY"),
                )
                _write_row(formatter, "...", f"`{lister}` lists all settings, `{one}` explains one")
        formatter.write("\n")
        _write_options(formatter, self.get_params(ctx))
        _write_examples(formatter, [f"{name} {example}" for each in forms for example in COMMANDS[each].examples])


class Several(TyperGroup):
    """A group of commands; its help lists them."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """See typer."""
        formatter.write(f"Usage: {ctx.command_path} COMMAND ...\n")
        _write_paragraphs(formatter, str(self.help))
        formatter.write("\n")
        names = self.list_commands(ctx)
        for name in names:
            command = self.get_command(ctx, name)
            _write_row(formatter, name, str(command and command.help).partition("\n")[0])
        formatter.write("\n")
        _write_options(formatter, self.get_params(ctx))
        shown = [
            " ".join([*ctx.command_path.split()[1:], name]) for name in names if name in _FIRST_STEPS or ctx.parent
        ]
        _write_examples(formatter, [f"{name} {COMMANDS[name].examples[0]}" for name in shown])


def short(setting: Explanation) -> str:
    """The first part of the meaning of a setting."""
    meaning = setting.meaning.replace("``", "").partition("; null")[0]
    for mark in ("; ", ". ", ": "):
        head = meaning.partition(mark)[0]
        meaning = head if " " in head and head.count("(") == head.count(")") else meaning
    return meaning.rstrip(".")


def _in_short(key: str, *kinds: type[Section]) -> str:
    """The same with the accepted names, or else the default."""
    setting, names = explain(key, *kinds), choices(fields_of(*kinds)[key].annotation)
    if len(names) > 2 or (names and "true" not in names):
        return f"{short(setting)}: {', '.join(names)}"
    return short(setting) if setting.default in (None, []) else f"{short(setting)} ({as_typed(setting.default)})"


def _write_paragraphs(formatter: Any, text: str) -> None:
    for paragraph in text.split("\n\n"):
        formatter.write("\n" + textwrap.fill(" ".join(paragraph.split()), _WIDTH) + "\n")


def _write_row(formatter: Any, name: str, text: str) -> None:
    first = f"  {name} ".ljust(_NAMES)
    lines = textwrap.wrap(text, _WIDTH - _NAMES, break_on_hyphens=False) or [""]
    if len(first) > _NAMES:
        formatter.write(f"{first}\n")
        first = " " * _NAMES
    formatter.write(f"{first}{lines[0]}\n" + "".join(f"{'':{_NAMES}}{line}\n" for line in lines[1:]))


def _write_options(formatter: Any, parameters: Iterable[Any]) -> None:
    for each in parameters:
        if each.param_type_name == "option":
            name = ", ".join(sorted(each.opts, key=len))
            _write_row(formatter, name if each.metavar is None else f"{name} {each.metavar}", each.help)


def _write_examples(formatter: Any, examples: Iterable[str]) -> None:
    """Commands as typed; long ones are continued with a backslash."""
    formatter.write("\nExamples:\n")
    for example in examples:
        lines = textwrap.wrap(f"sslight {example}".rstrip(), _WIDTH - 4, break_on_hyphens=False, break_long_words=False)
        formatter.write("  " + " \\\n      ".join(lines) + "\n")
