"""Options that several commands share, and what they say to the library."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import click

from onnxptq.errors import UsageError

EP_HELP = (
    "What to judge on: a provider (cuda:1 is the second GPU) or one of `onnxptq runtimes`, with :none, :basic or "
    ":extended for less optimization, or :exact for a CPU that would clip INT8 sums."
)

FALLBACK_HELP = "Run on the CPU where the provider does not load or does not take the model, and say so."

TRUST_HELP = "Data that you vouch for: its tables may name files outside of their folder, and unpack to any size."

_GIVEN = click.core.ParameterSource.COMMANDLINE

F = TypeVar("F", bound=Callable[..., Any])

_READING = (
    click.option("--image-column", metavar="NAME", help="Column of the images (or of the input); else it is found."),
    click.option("--label-column", metavar="NAME", help="Column of the labels; else it is found."),
    click.option("--skip-bad", is_flag=True, help="Leave out corrupt samples and count them, instead of stopping."),
    click.option("--trust-data", is_flag=True, help=TRUST_HELP),
    click.option("--task", metavar="NAME", help="The task, or its input alone, where the model does not say."),
    click.option("--head", metavar="NAME", help="What the outputs mean, where nothing says: classification, raw, ..."),
    click.option(
        "--shape", "shapes", multiple=True, metavar="NAME=1x3x224x224", help="Fix an input's open sizes. Repeatable."
    ),
    click.option("--preprocessing", metavar="FILE", help="JSON file with the preprocessing (docs/data.md)."),
    click.option(
        "--input-range",
        "input_ranges",
        multiple=True,
        metavar="[NAME=]LOW:HIGH",
        help="The least and greatest number that a tensor input can hold. Repeatable.",
    ),
    click.option(
        "--sample-rate",
        type=click.IntRange(1000, 1_000_000),
        metavar="HZ",
        help="Samples a second that a model of recordings was trained at.",
    ),
    click.option("--size", metavar="HxW", help="Height and width of the input, where the model leaves them open."),
    click.option("--mean", metavar="R,G,B", help="Mean for each channel, of values from 0 to 1."),
    click.option("--std", metavar="R,G,B", help="Standard deviation for each channel, of values from 0 to 1."),
)

_GROUPING = (
    click.option(
        "--group", "groups", multiple=True, metavar="COLUMN", help="Group by a column, or by a*b. Repeatable."
    ),
    click.option(
        "--corruption",
        "corruptions",
        multiple=True,
        metavar="NAME[@1-5]",
        help="Judge under this corruption too (onnxptq shifts); 'clean' alone judges without any. Repeatable.",
    ),
)

_JUDGING = (
    click.option("--ep", "provider", default="cpu", show_default=True, metavar="RUNTIME", help=EP_HELP),
    click.option("--allow-fallback", is_flag=True, help=FALLBACK_HELP),
    *_GROUPING,
    click.option("--all-groups", is_flag=True, help="Print a row for every group, not for the ten worst alone."),
)

_JUDGED_DATA = (
    click.option("--data", metavar="SOURCE", help="What to judge on. [default: the built-in data, for its models]"),
    click.option("--split", metavar="NAME", help="Split of the data to judge on. [default: test, else validation]"),
)


def _all(options: tuple[Callable[[F], F], ...]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


class Repeatable(click.Command):
    """Keeps the arguments as they were given, for the line that says how to repeat the command.

    They lie in the context, as `meta["onnxptq.arguments"]`.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does."""
        # The bytes of a name that is no UTF-8 could not be stored or printed.
        ctx.meta["onnxptq.arguments"] = [one.encode(errors="backslashreplace").decode() for one in args]
        return super().parse_args(ctx, args)


reading_options = _all(_READING)
judging_options = _all(_JUDGING)
grouping_options = _all(_GROUPING)
judged_data_options = _all(_JUDGED_DATA)


def data_options(values: dict[str, Any], **sources: str | None) -> Any:
    """Takes the reading options out of a command's values, as `DataOptions`."""
    from onnxptq.data import Columns
    from onnxptq.flags import parse_numbers, parse_ranges, parse_shape, parse_size, read_preprocessing
    from onnxptq.inputs import DataOptions

    image, label = values.pop("image_column"), values.pop("label_column")
    preprocessing: dict[str, Any] = {}
    if (path := values.pop("preprocessing")) is not None:
        preprocessing.update(read_preprocessing(path))
    if ranges := values.pop("input_ranges"):
        preprocessing["input_range"] = parse_ranges(ranges)
    if (size := values.pop("size")) is not None:
        preprocessing["size"] = parse_size(size)
    if shapes := values.pop("shapes"):
        preprocessing["shape"] = dict(map(parse_shape, shapes))
    if (rate := values.pop("sample_rate")) is not None:
        preprocessing["sample_rate"] = rate
    for name in ("mean", "std"):
        if (text := values.pop(name)) is not None:
            preprocessing[name] = parse_numbers(f"--{name}", text)
    return DataOptions(
        columns=Columns(inputs=(image,) if image else (), label=label),
        skip_bad=values.pop("skip_bad"),
        trust_data=values.pop("trust_data"),
        preprocessing=preprocessing,
        task=values.pop("task"),
        head=values.pop("head"),
        **sources,
    )


def given_words(without: Collection[str]) -> list[str]:
    """The current command's arguments and options that were given, as words of a command line.

    Args:
        without: names of parameters to leave out.
    """
    context = click.get_current_context()
    words: list[str] = []
    for parameter in context.command.params:
        name = str(parameter.name)
        value: Any = context.params.get(name)
        if name in without or context.get_parameter_source(name) != _GIVEN:
            continue
        if isinstance(parameter, click.Argument):
            words.append(str(value))
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            words.append(parameter.opts[-1])
        else:
            for one in value if parameter.multiple else (value,):
                words += [parameter.opts[-1], str(one)]
    return words


def check_not_given(decides: str, names: Sequence[str]) -> None:
    """Raises UsageError when an option was given beside the one that decides it."""
    context = click.get_current_context()
    for parameter in context.command.params:
        if parameter.name in names and context.get_parameter_source(parameter.name) == _GIVEN:
            option = parameter.opts[0]
            raise UsageError(f"{decides} says already what {option} does. Leave out one of the two.")


def choose_engine(values: dict[str, Any]) -> None:
    """Takes `--fast-calibration` out of a command's values: it is an engine. Raises UsageError beside another one."""
    if values.pop("fast_calibration"):
        check_not_given("--fast-calibration", ("engine",))
        values["engine"] = "one-pass-fast"
