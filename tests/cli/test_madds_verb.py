import pytest

from condconv_jax.cli import main

CONFIG = "--config=configs/fashion_mnist/mobilenet_v1.py:condconv"


def last_line(capsys, *arguments):
    assert main(["madds", *arguments]) == 0
    return capsys.readouterr().out.splitlines()[-1]


def test_a_network_by_name(capsys):
    line = last_line(capsys, "--model", "mobilenet_v1", "width=0.25", "num_experts=32")
    assert line == "55.6 M multiply-adds of one 224x224 image"
    line = last_line(capsys, "--model", "mobilenet_v1")
    assert line == "568.7 M multiply-adds of one 224x224 image"


def test_options_of_the_routing(capsys):
    line = last_line(
        capsys, "--model", "mobilenet_v1", "width=0.25", "num_experts=32", "routing.hidden=large"
    )
    assert line == "57.8 M multiply-adds of one 224x224 image"


def test_a_config_and_a_run(capsys, trained):
    by_config = last_line(capsys, CONFIG)
    assert by_config.endswith("multiply-adds of one 28x28 image")
    assert by_config != last_line(capsys, CONFIG, "--config.model.num_experts=4")
    assert last_line(capsys, f"--workdir={trained}").endswith("of one 28x28 image")


def test_classes_without_the_data(capsys, refused):
    config = "--config=configs/cifar100/mobilenet_v1.py:static"
    assert last_line(capsys, config, "--num-classes=100").endswith("of one 32x32 image")
    assert "or pass --num-classes" in refused("madds", config)


def test_the_paper(capsys):
    assert main(["madds", "--paper"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 20
    # Every count of the paper within 1 %.
    for row in rows[1:]:
        assert abs(float(row.split("%")[0].split()[-1])) < 1, row


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "mobilenet_v1", "widht=1"], "did you mean 'width'"),
        (["--model", "mobilenet_v1", "width=abc"], "width is 'abc'; pass a value like 1.0"),
        (["--model", "mobilenet_v1", "early_strides=2"], "early_strides is 2; pass a value like"),
        (["--model", "mobilenet_v1", "routing.top_k=x"], "top_k is 'x'; pass a value like 0"),
        (["--model", "mobilenet_v1", "routing=softmax"], "routing is 'softmax'; pass a value like"),
        (["--model", "mobilenet_v1", "width"], "'width' is no option; pass OPTION=VALUE"),
        (["--model", "mobilenet_v1", "--config.seed=1"], "unknown argument '--config.seed=1'"),
        ([CONFIG, "width=1"], "options go with --model"),
        (["--model", "mobilenet_v1", "--image-size=0"], "--image-size is 0"),
        ([CONFIG, "--num-classes=0"], "--num-classes is 0"),
        (["--workdir=nowhere"], "nowhere"),
    ],
)
def test_mistakes(arguments, words, refused):
    assert words in refused("madds", *arguments)
