"""What the program says about waiting for data."""

from sslight.train.machine.advice import waiting_advice


def test_up_to_a_tenth_nothing_is_said() -> None:
    assert waiting_advice(0.10, workers=1, default=7, cores=8, on_gpu=True) is None


def test_idle_cores_call_for_workers() -> None:
    advice = waiting_advice(0.42, workers=3, default=7, cores=8, on_gpu=True)
    assert advice == (
        "42% of the time is spent waiting for data: workers=3 leaves cores idle: leave it out for the default, 7 here."
    )


def test_busy_cores_call_for_less_work() -> None:
    on_gpu = waiting_advice(0.42, workers=7, default=7, cores=8, on_gpu=True)
    on_cpu = waiting_advice(0.42, workers=1, default=1, cores=2, on_gpu=False)
    assert on_gpu is not None
    assert on_cpu is not None
    assert "views.num_local" in on_gpu
    assert "with 7 workers on 8 cores, and this GPU would need about 14 cores to stay busy: " in on_gpu
    assert "training and 1 worker share 2 cores" in on_cpu
