"""Panels of the dashboards. Their descriptions and units come from ganrun/telemetry/series.py."""

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
"""Grafana's unit ids by unit in series.py; other units are shown as plain numbers."""
Steps = tuple[tuple[float | None, str], ...]
GOOD_AT_0: Steps = ((None, "green"), (1, "orange"))


def series_of(expression: str) -> list[Series]:
    """Return the ganrun series that a PromQL expression names."""
    names = dict.fromkeys(re.findall(rf"{PREFIX}(\w+)(?!\w|:)", expression))
    return [BY_NAME[name] for name in names if name in BY_NAME]


def unit_of(expression: str) -> str:
    """Return Grafana's unit id for the first series in an expression."""
    return next((UNITS[series.unit] for series in series_of(expression) if series.unit in UNITS), "short")


def help_of(*expressions: str) -> str:
    """Return the help texts of the series in these expressions."""
    helps = [series.help for expression in expressions for series in series_of(expression)]
    return "\n\n".join(dict.fromkeys(helps))


def query(expression: str, legend: str = "", letter: str = "A") -> prometheus.Dataquery:
    """Return a range query."""
    return prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(letter).range()


def thresholds(steps: Steps) -> board.ThresholdsConfig:
    """Return thresholds from (lower bound, colour) pairs; bound None is minus infinity."""
    return board.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps([Threshold(*step) for step in steps])


class Graph(timeseries.Panel):
    """Time series panel.

    Args:
        title: title of the panel.
        curves: legends by PromQL expression.
        unit: Grafana's unit id; empty: that of the first series.
        help: description; empty: help texts of the series.
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
        """Use a logarithmic axis."""
        return self.scale_distribution(ScaleDistributionConfig().type(common.ScaleDistribution.LOG).log(10))

    def limit(self, value: float) -> Self:
        """Draw a dashed line at the threshold of the alert."""
        self.thresholds(thresholds(((None, "green"), (value, "red"))))
        return self.thresholds_style(GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED))

    def stacked(self) -> Self:
        """Stack the curves, for parts of a sum."""
        return self.fill_opacity(40).stacking(StackingConfig().mode(common.StackingMode.NORMAL))


class Figure(stat.Panel):
    """Panel with the newest value in large digits.

    Args:
        title: title of the panel.
        expression: PromQL expression.
        steps: (lower bound, colour) pairs; empty: no colours.
        unit: Grafana's unit id; empty: that of the first series.
        legend: text before run and trial if there are several values.
        help: description; empty: help texts of the series.
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
        """Show (text, colour) instead of these values."""
        results = {str(value): ValueMappingResult(text, colour) for value, (text, colour) in texts.items()}
        return self.mappings([ValueMap(results)])


@dataclass(frozen=True)
class Column:
    """Column with one value per trial."""

    name: str
    expression: str
    unit: str = ""


def population(title: str, columns: tuple[Column, ...]) -> table.Panel:
    """Return a table with one row per trial."""
    panel = table.Panel().title(title).datasource(SOURCE).span(24).height(8)
    panel.description(help_of(*(column.expression for column in columns)))
    for letter, column in zip("ABCDEFGH", columns, strict=False):
        target = query(column.expression, letter=letter).instant()
        panel.with_target(target.format(PromQueryFormat.TABLE))
        panel.override_by_name(column.name, [DynamicConfigValue("unit", column.unit or unit_of(column.expression))])
    return panel.transformations(_one_frame(columns))


def over_images(title: str, columns: tuple[Column, ...]) -> xychart.Panel:
    """Return an XY chart per trial; the x axis is the first column, the images of the trial."""
    panel = xychart.Panel().title(title).datasource(SOURCE).span(12).height(9)
    panel.description(help_of(*(column.expression for column in columns[1:])) + "\n\nOver the trial's images.")
    panel.mapping(SeriesMapping.AUTO).show(XYShowMode.POINTS_AND_LINES).line_width(2)
    panel.legend(VizLegendOptions().show_legend(True).placement(common.LegendPlacement.BOTTOM))
    for letter, column in zip("ABCD", columns, strict=False):
        panel.with_target(query(column.expression, letter=letter).format(PromQueryFormat.TABLE))
    by_trial = {"fields": ["trial"], "keepFields": False, "naming": {"asLabels": True}}
    return panel.transformations([*_one_frame(columns), DataTransformerConfig("partitionByValues", options=by_trial)])


def _one_frame(columns: tuple[Column, ...]) -> list[DataTransformerConfig]:
    """Return transformations that join the results of all queries into one table with the names of the columns."""
    answers = [f"Value #{letter}" for letter, _ in zip("ABCDEFGH", columns, strict=False)]
    organize = {
        "excludeByName": {"Time": True},
        "indexByName": {name: index for index, name in enumerate(["trial", *answers])},
        "renameByName": {answer: column.name for answer, column in zip(answers, columns, strict=True)},
    }
    return [DataTransformerConfig("merge", options={}), DataTransformerConfig("organize", options=organize)]


def variable(name: str, values: str, all_of_them: str = "") -> board.QueryVariable:
    """Return a drop-down at the top of a dashboard.

    Args:
        name: name of the variable.
        values: query of its values.
        all_of_them: pattern that matches all values; it allows several choices. Empty: one choice.
    """
    made = board.QueryVariable(name).datasource(SOURCE).query(values).definition(values)
    made.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    made.sort(VariableSort.ALPHABETICAL_ASC)
    if all_of_them:
        made.multi(True).include_all(True).all_value(all_of_them)
        made.current(VariableOption(text="All", value="$__all"))
    return made


def mark(name: str, expression: str, colour: str, text: str) -> board.AnnotationQuery:
    """Return an annotation: a vertical line in all graphs at each time the expression has a value."""
    made = board.AnnotationQuery().name(name).datasource(SOURCE).enable(True).icon_color(colour)
    return made.expr(expression).step("60s").title_format(name).text_format(text)
