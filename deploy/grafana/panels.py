"""How a panel looks. What series.py says of a metric becomes the panel's description and unit."""

import re
from dataclasses import dataclass
from typing import Self

from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries, xychart
from grafana_foundation_sdk.builders.common import (
    GraphThresholdsStyleConfig,
    ReduceDataOptions,
    ScaleDistributionConfig,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import (
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.xychart import SeriesMapping, XYShowMode

from ganrun.telemetry.series import BY_NAME, PREFIX, Series

SOURCE = common.DataSourceRef("prometheus", "prometheus")
UNITS = {"seconds": "s", "bytes": "bytes", "ratio": "percentunit", "images/s": "suffix: images/s"}
"""Grafana's names of the units of series.py; others are plain numbers."""
Steps = tuple[tuple[float | None, str], ...]
GOOD_AT_0: Steps = ((None, "green"), (1, "orange"))


def series_of(expression: str) -> list[Series]:
    """Those whose names stand in it."""
    names = dict.fromkeys(re.findall(rf"{PREFIX}(\w+)(?!\w|:)", expression))
    return [BY_NAME[name] for name in names if name in BY_NAME]


def unit_of(expression: str) -> str:
    """Grafana's name of the first series' unit."""
    return next((UNITS[series.unit] for series in series_of(expression) if series.unit in UNITS), "short")


def help_of(*expressions: str) -> str:
    """What the series of these expressions mean."""
    helps = [series.help for expression in expressions for series in series_of(expression)]
    return "\n\n".join(dict.fromkeys(helps))


def query(expression: str, legend: str = "", letter: str = "A") -> prometheus.Dataquery:
    """A range query."""
    return prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(letter).range()


def thresholds(steps: Steps) -> board.ThresholdsConfig:
    """Colours from these values up; None is minus infinity."""
    return board.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps([Threshold(*step) for step in steps])


class Graph(timeseries.Panel):
    """Curves over time.

    Args:
        title: of the panel.
        curves: expressions with their legends.
        unit: Grafana's name; that of the first series unless given.
        help: further description, for what is not in series.py.
    """

    def __init__(self, title: str, curves: dict[str, str], unit: str = "", help: str = "") -> None:
        super().__init__()
        legend = VizLegendOptions().show_legend(True).placement(common.LegendPlacement.BOTTOM)
        self.title(title).description(help or help_of(*curves)).datasource(SOURCE).span(8).height(8)
        self.unit(unit or unit_of(next(iter(curves))))
        self.line_width(2).fill_opacity(6).show_points(common.VisibilityMode.AUTO)
        self.legend(legend.display_mode(common.LegendDisplayMode.LIST).calcs(["lastNotNull"]))
        self.tooltip(VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
        for letter, (expression, name) in zip("ABCDEF", curves.items(), strict=False):
            self.with_target(query(expression, name, letter))

    def logarithmic(self) -> Self:
        """For what spans decades."""
        return self.scale_distribution(ScaleDistributionConfig().type(common.ScaleDistribution.LOG).log(10))

    def limit(self, value: float) -> Self:
        """A dashed line from which on it is bad, the alert's."""
        self.thresholds(thresholds(((None, "green"), (value, "red"))))
        return self.thresholds_style(GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED))

    def stacked(self) -> Self:
        """Parts of a sum."""
        return self.fill_opacity(40).stacking(StackingConfig().mode(common.StackingMode.NORMAL))


class Figure(stat.Panel):
    """The newest value, large.

    Args:
        title: of the panel.
        expression: its value.
        steps: what each colour means.
        unit: Grafana's name; that of the first series unless given.
        legend: shown before run and trial where there are several.
        help: further description, for what is not in series.py.
    """

    def __init__(
        self, title: str, expression: str, steps: Steps = (), unit: str = "", legend: str = "", help: str = ""
    ) -> None:
        super().__init__()
        self.title(title).description(help or help_of(expression)).datasource(SOURCE).span(3).height(4)
        self.unit(unit or unit_of(expression)).thresholds(thresholds(steps or ((None, "text"),)))
        self.color_mode(common.BigValueColorMode.BACKGROUND if steps else common.BigValueColorMode.VALUE)
        self.color_scheme(board.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        self.graph_mode(common.BigValueGraphMode.NONE).reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
        self.with_target(query(expression, f"{legend} {{{{run}}}} {{{{trial}}}}".strip()))

    def words(self, texts: dict[int, tuple[str, str]]) -> Self:
        """Text and colour in place of these values."""
        results = {str(value): ValueMappingResult(text, colour) for value, (text, colour) in texts.items()}
        return self.mappings([ValueMap(results)])


@dataclass(frozen=True)
class Column:
    """A value a trial."""

    name: str
    expression: str
    unit: str = ""


def population(title: str, columns: tuple[Column, ...]) -> table.Panel:
    """A table with a line a trial."""
    panel = table.Panel().title(title).datasource(SOURCE).span(24).height(8)
    panel.description(help_of(*(column.expression for column in columns)))
    for letter, column in zip("ABCDEFGH", columns, strict=False):
        target = query(column.expression, letter=letter).instant()
        panel.with_target(target.format(PromQueryFormat.TABLE))
        panel.override_by_name(column.name, [DynamicConfigValue("unit", column.unit or unit_of(column.expression))])
    return panel.transformations(_one_frame(columns))


def over_images(title: str, columns: tuple[Column, ...]) -> xychart.Panel:
    """Curves a trial over the first column, which is its images."""
    panel = xychart.Panel().title(title).datasource(SOURCE).span(12).height(9)
    panel.description(help_of(*(column.expression for column in columns[1:])) + "\n\nOver the trial's images.")
    panel.mapping(SeriesMapping.AUTO).show(XYShowMode.POINTS_AND_LINES).line_width(2)
    panel.legend(VizLegendOptions().show_legend(True).placement(common.LegendPlacement.BOTTOM))
    for letter, column in zip("ABCD", columns, strict=False):
        panel.with_target(query(column.expression, letter=letter).format(PromQueryFormat.TABLE))
    by_trial = {"fields": ["trial"], "keepFields": False, "naming": {"asLabels": True}}
    return panel.transformations([*_one_frame(columns), DataTransformerConfig("partitionByValues", options=by_trial)])


def _one_frame(columns: tuple[Column, ...]) -> list[DataTransformerConfig]:
    """The answers side by side, under the columns' names."""
    answers = [f"Value #{letter}" for letter, _ in zip("ABCDEFGH", columns, strict=False)]
    organize = {
        "excludeByName": {"Time": True},
        "indexByName": {name: index for index, name in enumerate(["trial", *answers])},
        "renameByName": {answer: column.name for answer, column in zip(answers, columns, strict=True)},
    }
    return [DataTransformerConfig("merge", options={}), DataTransformerConfig("organize", options=organize)]


def variable(name: str, values: str, all_of_them: str = "") -> board.QueryVariable:
    """A choice at the top of a dashboard: of one, or, with a pattern for all of them, of several."""
    made = board.QueryVariable(name).datasource(SOURCE).query(values).definition(values)
    made.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    made.sort(VariableSort.ALPHABETICAL_ASC)
    if all_of_them:
        made.multi(True).include_all(True).all_value(all_of_them)
        made.current(VariableOption(text="All", value="$__all"))
    return made


def mark(name: str, expression: str, colour: str, text: str) -> board.AnnotationQuery:
    """A vertical line in all graphs wherever the expression has a value."""
    made = board.AnnotationQuery().name(name).datasource(SOURCE).enable(True).icon_color(colour)
    return made.expr(expression).step("60s").title_format(name).text_format(text)
