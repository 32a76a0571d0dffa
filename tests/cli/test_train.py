import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from condconv_jax import runtime, training
from condconv_jax.cli import madds, main


def test_what_a_run_leaves(trained):
    config = json.loads((trained / "config.json").read_text())
    assert config["model"]["num_experts"] == 2
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if r["kind"] == "train"] == [1, 2, 3, 4]
    assert rows[-1]["kind"] == "eval"
    assert rows[-1]["examples"] == 20
    assert list((trained / "tensorboard").iterdir())
    assert json.loads((trained / "done.json").read_text())["steps"] == 4
    tree = runtime.load_tree(trained)
    assert int(tree["step"]) == 4
    assert tree["params"]["layer_14"]["depthwise"]["kernel"].shape[0] == 2


def test_evaluate_repeats_the_last_evaluation(trained, capsys):
    assert main(["evaluate", f"--workdir={trained}"]) == 0
    printed = capsys.readouterr().out
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert f"{rows[-1]['loss']:.4f}" in printed
    assert f"{rows[-1]['top1']:.4f}" in printed
    assert "examples   20" in printed


def test_evaluate_on_another_split(trained, capsys):
    split = "--config.data.eval=test[20:30]"
    assert main(["evaluate", f"--workdir={trained}", split, "--config.eval_batch_size=8"]) == 0
    assert "examples   10" in capsys.readouterr().out


def test_train_again_does_nothing_and_another_config_is_refused(trained, tiny, refused, capsys):
    before = (trained / "metrics.jsonl").read_text()
    assert main(["train", *tiny, f"--workdir={trained}"]) == 0
    assert "going on from step 4" in capsys.readouterr().out
    assert (trained / "metrics.jsonl").read_text() == before
    line = refused(
        "train", *tiny, "--config.model.dropout=0.5", "--config.seed=3", f"--workdir={trained}"
    )
    assert "model.dropout" in line
    assert "0.5" in line
    assert "seed" in line
    assert "another work directory" in line
    assert json.loads((trained / "config.json").read_text())["seed"] == 0


def test_a_trace_that_there_was_no_time_for_is_missed(trained, tiny, capsys):
    assert main(["train", *tiny, "--profile=2", f"--workdir={trained}"]) == 0
    assert "note: no trace: this start did no more than the steps" in capsys.readouterr().out


def test_keys_that_may_change_do(trained, tiny):
    assert main(["train", *tiny, "--config.log_every=2", f"--workdir={trained}"]) == 0


def folder_of_images(root, classes=("cat", "dog", "emu"), size=20, count=16):
    draw = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(draw.integers(0, 255, (size, size, 3), np.uint8)).save(
                    folder / f"{i}.png"
                )
    return root


def finetuning(trained, root, *more):
    return [
        "--config=configs/folder/mobilenet_v1.py",
        f"--config.init_from={trained}",
        f"--config.data.path={root}",
        "--config.data.image_size=20",
        "--config.model.width=0.125",
        "--config.model.num_experts=2",
        "--config.model.begin_layer=14",
        "--config.batch_size=16",
        "--config.eval_batch_size=16",
        "--config.epochs=1",
        "--config.schedule.warmup_epochs=0",
        "--config.schedule.learning_rate=1e-9",
        *more,
    ]


def test_finetuning_on_a_folder_with_another_number_of_classes(trained, tmp_path, capsys):
    root = folder_of_images(tmp_path / "pictures")
    workdir = tmp_path / "run"
    assert main(["train", *finetuning(trained, root), f"--workdir={workdir}"]) == 0
    assert "starts anew: classifier/bias, classifier/kernel" in capsys.readouterr().out
    old, new = runtime.load_tree(trained)["params"], runtime.load_tree(workdir)["params"]
    assert new["classifier"]["kernel"].shape[-1] == 3
    # At this learning rate nothing has moved from where it came from.
    np.testing.assert_allclose(
        new["layer_14"]["pointwise"]["kernel"], old["layer_14"]["pointwise"]["kernel"], atol=1e-6
    )
    np.testing.assert_allclose(new["router_15"]["kernel"], old["router_15"]["kernel"], atol=1e-6)


def test_finetuning_mistakes_cost_nothing(trained, tmp_path, refused):
    root = folder_of_images(tmp_path / "pictures")
    workdir = tmp_path / "run"
    line = refused(
        "train", *finetuning(trained, root, "--config.model.width=0.2"), f"--workdir={workdir}"
    )
    assert "the checkpoint is of another network" in line
    line = refused(
        "train", *finetuning(tmp_path / "nothing", root), f"--workdir={tmp_path / 'run2'}"
    )
    assert "nothing" in line
    assert not (tmp_path / "run2" / "config.json").exists()


def test_a_corrupt_image_is_named_and_nothing_is_lost(trained, tmp_path, refused):
    root = folder_of_images(tmp_path / "pictures")
    broken, whole = root / "val" / "dog" / "3.png", root / "val" / "dog" / "4.png"
    broken.write_bytes(b"not a picture")
    arguments = [*finetuning(trained, root), f"--workdir={tmp_path / 'run'}"]
    assert "3.png" in refused("train", *arguments)
    assert runtime.find_checkpoint(tmp_path / "run")[1] == 3  # all steps of the one epoch
    broken.write_bytes(whole.read_bytes())
    assert main(["train", *arguments]) == 0


@pytest.mark.slow
def test_a_run_that_never_started_does_not_bind_its_work_directory(
    trained, tiny, tmp_path, refused
):
    workdir = f"--workdir={tmp_path / 'run'}"
    lines = refused("train", *tiny, "--config.schedule.learning_rate=1e30", workdir)
    assert "Lower the learning rate" in lines
    assert (tmp_path / "run" / "config.json").exists()
    assert main(["train", *tiny, workdir]) == 0  # as the message says


def test_other_data_are_refused(trained, tiny, refused):
    (facts := runtime.WorkDir(trained).read_facts())["train_images"] -= 1
    text = (trained / "data.json").read_text()
    runtime.WorkDir(trained).write_facts(facts)
    line = refused("train", *tiny, f"--workdir={trained}")
    (trained / "data.json").write_text(text)
    assert "had train_images 63, these have 64; use the same data" in line
    other = ["--config.data.name=npz", "--config.data.path=elsewhere"]
    assert "elsewhere" in refused("evaluate", f"--workdir={trained}", *other)


def test_best(trained, tmp_path, refused, capsys):
    assert main(["evaluate", f"--workdir={trained}", "--best"]) == 0
    assert "step 4" in capsys.readouterr().out
    line = refused("evaluate", f"--workdir={trained}/checkpoints/4", "--best")
    assert "is one checkpoint; pass its work directory" in line
    (tmp_path / "8").symlink_to(trained)
    assert main(["evaluate", f"--workdir={tmp_path / '8'}", "--best"]) == 0


@pytest.fixture
def begun(monkeypatch):
    """What training is given, where it begins; none is trained."""
    given = {}

    def begin(*arguments, **options):
        given.update(options)
        checkpoints = options["checkpoints"]
        if checkpoints.latest_step() is None:
            for step, top1 in enumerate((0.9, 0.8, 0.1, 0.2, 0.3), start=1):
                checkpoints.save(step, {"w": np.zeros(2)}, metrics={"top1": top1})
            given["kept"] = checkpoints.all_steps()
        raise ValueError("this far")

    monkeypatch.setattr(training, "train", begin)
    return given


def test_training_is_given_its_seed_and_what_to_keep(tiny, tmp_path, refused, begun):
    options = ["--config.seed=3", "--config.keep_last=1", "--config.keep_best=2"]
    assert refused("train", *tiny, *options, f"--workdir={tmp_path}").endswith("this far")
    assert jax.random.key_data(begun["key"]).tolist() == [0, 3]
    assert begun["kept"] == [1, 2, 5]


def test_an_evaluation_that_was_not_finished_is_logged_once(
    trained, tiny, tmp_path, refused, begun
):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    assert refused("train", *tiny, f"--workdir={workdir}").endswith("this far")
    rows = runtime.read_json_lines(workdir / "metrics.jsonl")
    assert rows == runtime.read_json_lines(trained / "metrics.jsonl")
    # As if it had died within its last evaluation: a checkpoint without scores.
    with runtime.Checkpoints(workdir / "checkpoints") as checkpoints:
        checkpoints.save(4, {"w": np.zeros(2)}, replace=True)
    assert refused("train", *tiny, f"--workdir={workdir}").endswith("this far")
    assert runtime.read_json_lines(workdir / "metrics.jsonl") == rows[:-1]


def test_config_files_that_lack_keys(tmp_path, refused):
    (tmp_path / "own.py").write_text(
        "from condconv_jax.config import classification\n"
        "def get_config():\n"
        "    config = classification()\n"
        "    del config.optimizer.momentum\n"
        "    return config\n"
    )
    line = refused("train", f"--config={tmp_path}/own.py", f"--workdir={tmp_path}/run")
    words = "no optimizer.momentum; start from condconv_jax.config.classification('mobilenet_v1')"
    assert words in line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--config.model.widht=1"], ["unknown key 'model.widht'", "did you mean 'model.width'"]),
        (["--config.model.width=abc"], ["--config.model.width=abc", "float"]),
        (["--config.seed=1.5"], ["--config.seed=1.5", "int"]),
        (["--config.data.flip=maybe"], ["--config.data.flip=maybe", "boolean"]),
        (["--config.model.name=mobilenet_v2"], ["a config is of one network; take a config of"]),
        (["--config.model.routing.activation=sigmiod"], ["did you mean 'sigmoid'"]),
        (["--config.model.begin_layer=16"], ["begin_layer is 16; pass 1 to 15"]),
        (["--config.model.dtype=float8"], ["unknown dtype 'float8'"]),
        (["--config.model.method=vmap"], ["unknown method 'vmap'", "'reference'"]),
        (["--config.data.name=npz", "--config.data.path=nowhere"], ["nowhere"]),
        (["--config.data.name=imagenet"], ["unknown source 'imagenet'"]),
        (["--config.data.train=train[:0]"], ["train[:0]"]),
        (["--config.data.statistics=cifar"], ["did you mean 'cifar100'"]),
        (["--config.optimizer.name=adamw"], ["unknown optimizer 'adamw'"]),
        (["--config.batch_size=0"], ["config.batch_size is 0; pass at least 1"]),
        (["--config.eval_batch_size=0"], ["config.eval_batch_size is 0; pass at least 1"]),
        (["--config.seed=-1"], ["config.seed is -1; pass 0 to 2**32 - 1"]),
        (["--config.epochs=-3"], ["config.epochs is -3"]),
        (["--config.eval_every_epochs=0"], ["config.eval_every_epochs is 0"]),
        (["--config.label_smoothing=7"], ["config.label_smoothing is 7"]),
        (["--config.data.threads=-1"], ["config.data.threads is -1; pass 0 or more"]),
        (["--config.model.dropout=1.5"], ["dropout is 1.5; pass 0 (none) to below 1"]),
        (["--config.batch_size=12"], ["config.batch_size is 12, devices are 8"]),
        (["--config.schedule.warmup_epochs=9"], ["warm-up steps"]),
        (["--config.task=segmentation"], ["unknown task 'segmentation'"]),
        (["--verbose"], ["unknown argument '--verbose'"]),
        (["--config.seed"], ["no value; pass --config.seed=VALUE"]),
    ],
)
def test_bad_input_is_one_line_that_names_the_fix(change, words, tiny, tmp_path, refused):
    line = refused("train", *tiny, *change, f"--workdir={tmp_path / 'run'}")
    for word in words:
        assert word in line
    assert not (tmp_path / "run" / "config.json").exists()


def test_config_files_that_are_not_there(tmp_path, refused):
    workdir = f"--workdir={tmp_path / 'run'}"
    assert "no file 'nothing.py'" in refused("train", "--config=nothing.py", workdir)
    file = "configs/fashion_mnist/mobilenet_v1.py"
    line = refused("train", f"--config={file}:dense", workdir)
    assert "unknown network 'dense'; choose one of 'condconv', 'static'" in line


def test_nothing_trained_there(tmp_path, refused):
    line = refused("evaluate", f"--workdir={tmp_path}")
    assert str(tmp_path) in line


def test_too_little_memory_is_one_line(monkeypatch, refused):
    def run(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nx")

    monkeypatch.setattr(madds, "run", run)
    line = refused("madds", "--paper")
    assert "the device has too little memory: RESOURCE_EXHAUSTED: Out of memory allocating" in line
    assert line.endswith("use a smaller batch, or to train with the same one config.micro_batches")


def test_debug_shows_the_traceback(tiny, tmp_path):
    with pytest.raises(ValueError, match="begin_layer"):
        main(
            ["train", *tiny, "--config.model.begin_layer=16", "--debug", f"--workdir={tmp_path}/r"]
        )


def test_a_network_that_was_not_trained_is_refused(trained, refused):
    line = refused("evaluate", f"--workdir={trained}", "--config.model.num_experts=4")
    assert "router_15/kernel is (128, 2), the network wants (128, 4)" in line
    assert "make the model's options those of the checkpoint" in line


@pytest.mark.slow
def test_all_that_recipes_have_together(tiny, tmp_path, capsys):
    arguments = [
        *tiny,
        "--config.model.dtype=bfloat16",
        "--config.model.batch_norm_group=4",
        "--config.optimizer.name=rmsprop",
        "--config.schedule.name=exponential",
        "--config.schedule.per_examples=256",
        "--config.average_decay=0.9",
        "--config.micro_batches=2",
        "--config.expert_parts=2",
        "--config.mixup=0.2",
        "--config.data.augment=autoaugment",
        "--config.data.max_corrupt=1",
        f"--workdir={tmp_path / 'run'}",
    ]
    assert main(["train", *arguments]) == 0
    tree = runtime.load_tree(tmp_path / "run")
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(tree["params"])} == {"float32"}
    rows = runtime.read_json_lines(tmp_path / "run" / "metrics.jsonl")
    steps, (*_, last) = [row for row in rows if row["kind"] == "train"], rows
    # 0.1 for 256 images is 0.00625 for 16; all of the first quarter of an epoch warms up.
    assert steps[1]["learning_rate"] == pytest.approx(0.2 * 16 / 256)
    assert all(0 <= row["input_wait"] <= 1 for row in steps)
    # The averages, which lag behind, are what is evaluated, in training and after it.
    params, averages = tree["params"], tree["averages"]["params"]
    assert not np.array_equal(params["layer_1"]["kernel"], averages["layer_1"]["kernel"])
    assert main(["evaluate", f"--workdir={tmp_path / 'run'}"]) == 0
    assert f"{last['loss']:.4f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        (
            "--config.micro_batches=4",
            "devices are 8, config.micro_batches 4; pass a multiple of 32",
        ),
        (
            "--config.model.batch_norm_group=5",
            "config.model.batch_norm_group is 5, 16 examples are computed at a time",
        ),
        ("--config.schedule.warmup_epochs=2", "shorten the warm-up (schedule.warmup_epochs)"),
        (
            "--config.expert_parts=4",
            "is 4, and a layer of the network mixes 2 kernels",
        ),
        ("--config.expert_parts=3", "expert_parts is 3, devices are 8; pass a divisor"),
        ("--config.average_decay=1", "config.average_decay is 1"),
        ("--config.mixup=-1", "config.mixup is -1"),
        ("--config.data.area=0.5", "got area (0.5,); wants two numbers"),
        ("--config.optimizer.clip_norm=-1", "clip_norm is -1.0; pass 0"),
        ("--profile=-1", "steps is -1; pass 0"),
    ],
)
def test_what_does_not_divide_is_refused(tiny, tmp_path, refused, argument, words):
    assert words in refused("train", *tiny, argument, f"--workdir={tmp_path}")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("verb", ["evaluate", "train"])
def test_a_damaged_checkpoint_is_named(trained, tiny, tmp_path, refused, verb):
    shutil.copytree(trained, tmp_path / "run")
    step = tmp_path / "run" / "checkpoints" / "4"
    data = max(step.rglob("*"), key=lambda item: item.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    more = tiny if verb == "train" else []
    line = refused(verb, *more, f"--workdir={tmp_path / 'run'}")
    assert f"checkpoint {step} is damaged: {data.relative_to(step)} is not what was saved" in line


def test_pictures_that_lie_on_the_device_and_a_run_that_goes_on_with_them(tiny, tmp_path, refused):
    arguments = [*tiny, "--config.data.on_device=True", "--config.checkpoint_every_epochs=0.5"]
    whole, on = tmp_path / "whole", tmp_path / "on"
    assert main(["train", *arguments, f"--workdir={whole}"]) == 0
    shutil.copytree(whole, on)
    shutil.rmtree(on / "checkpoints" / "4")
    assert main(["train", *arguments, f"--workdir={on}"]) == 0
    ends = [runtime.load_tree(path, 4)["params"] for path in (whole, on)]
    jax.tree.map(np.testing.assert_array_equal, *ends)
    line = refused("train", *arguments, "--config.data.augment=randaugment", f"--workdir={on}")
    assert "on the device pictures are padded, cropped and mirrored, nothing else" in line
