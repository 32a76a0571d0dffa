"""What a network costs and how it routes (floor 4)."""

from condconv_jax.analysis.madds import LayerCost, count_madds, layer_costs

__all__ = ["LayerCost", "count_madds", "layer_costs"]
