r"""ResNet-50 on ImageNet: static, CondConv with 2 or 8 experts, or 8 with regularised experts.

  condconv train --config=configs/imagenet/resnet50.py:shake \
      --config.data.path=DATA_DIR --workdir=runs/resnet50

static, 2, 8, drop or shake. The paper's top-1: static 77.7 %, CondConv 78.6 % (table 1); the
authors' response: 8 experts overfit to 77.7 %, and reach 78.6 % with a regularisation in the style
of Shake-Shake, of which "drop" and "shake" are two readings (`ops.drop_experts`,
`ops.shake_experts`). Not run by us: ImageNet was not at hand. The data as in mobilenet_v1.py.
"""

from condconv_jax.config import imagenet, regularize_as_condconv, train_as_kornblith
from condconv_jax.names import unknown_name

# Experts, and what regularises them.
VARIANTS = {
    "static": (0, "none"),
    "2": (2, "none"),
    "8": (8, "none"),
    "drop": (8, "drop"),
    "shake": (8, "shake"),
}


def get_config(arg: str = "shake"):
    if arg not in VARIANTS:
        raise unknown_name("configs/imagenet/resnet50.py", "variant", arg, VARIANTS)
    config = imagenet("resnet50")
    train_as_kornblith(config)
    config.model.num_experts, config.model.routing.noise = VARIANTS[arg]
    if config.model.num_experts:
        regularize_as_condconv(config)
    return config.lock()
