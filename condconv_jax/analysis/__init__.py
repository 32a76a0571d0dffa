"""What a network costs, how it routes and what it detects (floor 4)."""

from condconv_jax.analysis.collecting import Collected, collect
from condconv_jax.analysis.curves import Curves, read_curves
from condconv_jax.analysis.drawn_boxes import class_color, draw_boxes
from condconv_jax.analysis.experts import expert_spread, learned_spread
from condconv_jax.analysis.figures import looks, require_matplotlib
from condconv_jax.analysis.madds import LayerCost, count_madds, layer_costs
from condconv_jax.analysis.report import write_report
from condconv_jax.analysis.routing import (
    LayerStatistics,
    chance_specificity,
    class_specificity,
    class_spread,
    expert_use,
    layer_statistics,
    mean_by_class,
    share_near,
    top_classes,
    weight_histogram,
)
from condconv_jax.analysis.summary import Network, table, text_table

__all__ = [
    "Collected",
    "Curves",
    "LayerCost",
    "LayerStatistics",
    "Network",
    "chance_specificity",
    "class_color",
    "class_specificity",
    "class_spread",
    "collect",
    "count_madds",
    "draw_boxes",
    "expert_spread",
    "expert_use",
    "layer_costs",
    "layer_statistics",
    "learned_spread",
    "looks",
    "mean_by_class",
    "read_curves",
    "require_matplotlib",
    "share_near",
    "table",
    "text_table",
    "top_classes",
    "weight_histogram",
    "write_report",
]
