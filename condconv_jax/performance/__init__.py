"""How fast the ops are here: layers to time, peaks of the machine, and the bound they set."""
