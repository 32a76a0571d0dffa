import io

import pytest

from condconv_jax.runtime import ProgressWriter


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def lines_of(clock, calls, **kwargs):
    """Returns what is shown for calls (seconds, step, scalars, kind) where there is no terminal."""
    file = io.StringIO()
    writer = ProgressWriter(100, 32, file=file, clock=clock, **kwargs)
    for now, step, scalars, kind in calls:
        clock.now = now
        writer.write(step, scalars, kind)
    writer.close()
    return file.getvalue().splitlines()


def test_lines_are_spaced_in_time_and_the_last_step_is_shown(clock):
    calls = [(float(step), step, {"loss": 1.0}, "train") for step in range(1, 101)]
    lines = lines_of(clock, calls, seconds_between_lines=30.0)
    assert [line.split()[1] for line in lines] == ["1/100", "31/100", "61/100", "91/100", "100/100"]


def test_line_has_loss_speed_and_time_left(clock):
    calls = [(0.0, 10, {"loss": 2.0}, "train"), (20.0, 20, {"loss": 1.5}, "train")]
    lines = lines_of(clock, calls)
    assert lines[0] == "step 10/100 (10.0%)  loss 2.0000"
    assert lines[1] == "step 20/100 (20.0%)  loss 1.5000  16 images/s  02:40 left"


def test_time_of_an_evaluation_is_not_counted(clock):
    calls = [
        (0.0, 10, {"loss": 2.0}, "train"),
        (1000.0, 10, {"top1": 0.5}, "eval"),
        (1010.0, 20, {"loss": 1.0}, "train"),
    ]
    lines = lines_of(clock, calls)
    assert lines[1] == "step 10/100 (10.0%)  eval  top1 0.5000"
    assert "32 images/s" in lines[2]


def test_bar_on_a_terminal(clock):
    file = Terminal()
    writer = ProgressWriter(100, 32, first_step=50, file=file, clock=clock)
    writer.write(60, {"loss": 2.0})
    clock.now = 10.0
    writer.write(70, {"loss": 1.0})
    writer.write(70, {"top1": 0.75}, "eval")
    writer.close()
    shown = file.getvalue()
    assert "50/100" in shown
    assert "step 70/100 (70.0%)  eval  top1 0.7500\n" in shown
    assert "70/100, loss 1.0000  32 images/s  00:30 left" in shown


def test_steps_without_a_loss(clock):
    assert lines_of(clock, [(0.0, 1, {}, "train")]) == ["step 1/100 (1.0%)"]
