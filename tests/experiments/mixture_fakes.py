"""What runs of claim b leave, made up."""

import numpy as np


def mixtures(**as_one):
    """Lines of one mixture, by variant, which gives what one convolution does but for `as_one`."""
    compared = {"difference": 1e-6, "agreement": 1.0, "images": 1024, **as_one}
    return {"mixture8": [{"as_one": compared}]}


def first_steps(seeds=4, start=1e-6, farther=1.0):
    """Losses of one convolution, of another program 0.1 from it, and of a mixture.

    The mixture is `start` from it in the first row, then `farther` times as far as the other, a
    little more in one seed than in the next.
    """
    one = np.linspace(5.0, 4.0, 40) + np.zeros((seeds, 1))
    away = np.where(np.arange(40) < 2, start, 0.1) * np.ones((seeds, 1))
    between_seeds = np.linspace(0.9, 1.1, seeds)[:, None]
    losses = {"auto": one, "portable": one + away, "mixture": one - away * farther * between_seeds}
    return {
        "step": list(range(5, 205, 5)),
        "losses": {method: values.tolist() for method, values in losses.items()},
    }
