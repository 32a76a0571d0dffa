"""What a network costs, how it routes and what it detects (floor 4)."""

from condconv_jax.analysis.collapse import effective_experts, experts_per_image, idle_experts
from condconv_jax.analysis.collecting import Collected, collect
from condconv_jax.analysis.curves import Curves, read_curves, thinned
from condconv_jax.analysis.drawn_boxes import class_color, draw_boxes
from condconv_jax.analysis.drawn_captions import draw_caption
from condconv_jax.analysis.experts import expert_rank, expert_spread, learned_spread
from condconv_jax.analysis.favourites import (
    Favourites,
    find_favourites,
    most_varied_experts,
    top_images,
)
from condconv_jax.analysis.figures import looks, require_matplotlib
from condconv_jax.analysis.layer_statistics import LayerStatistics, layer_statistics
from condconv_jax.analysis.madds import LayerCost, count_madds, layer_costs
from condconv_jax.analysis.report import write_report
from condconv_jax.analysis.routing import (
    chance_specificity,
    class_specificity,
    class_spread,
    expert_use,
    mean_by_class,
    share_near,
    top_classes,
    weight_histogram,
)
from condconv_jax.analysis.summary import AnalysedNetwork, table, text_table
from condconv_jax.analysis.switching_off import (
    SwitchedOff,
    evaluate_without,
    evenly_spaced_batches,
    switch_off,
)

__all__ = [
    "AnalysedNetwork",
    "Collected",
    "Curves",
    "Favourites",
    "LayerCost",
    "LayerStatistics",
    "SwitchedOff",
    "chance_specificity",
    "class_color",
    "class_specificity",
    "class_spread",
    "collect",
    "count_madds",
    "draw_boxes",
    "draw_caption",
    "effective_experts",
    "evaluate_without",
    "evenly_spaced_batches",
    "expert_rank",
    "expert_spread",
    "expert_use",
    "experts_per_image",
    "find_favourites",
    "idle_experts",
    "layer_costs",
    "layer_statistics",
    "learned_spread",
    "looks",
    "mean_by_class",
    "most_varied_experts",
    "read_curves",
    "require_matplotlib",
    "share_near",
    "switch_off",
    "table",
    "text_table",
    "thinned",
    "top_classes",
    "top_images",
    "weight_histogram",
    "write_report",
]
