from penjing.train.journal import GrowthAlarm


def watch(sizes: list[int]) -> list[str]:
    alarm = GrowthAlarm()
    return [warning for size in sizes if (warning := alarm.observe(size))]


def test_memory_that_only_grows_is_told_once() -> None:
    warnings = watch([10**9 + 10**6 * step for step in range(1500)])
    assert len(warnings) == 1
    assert "memory grew from 1.00 to 1.40 GB over the last 400 steps" in warnings[0]


def test_memory_that_fills_up_and_stays_is_not() -> None:
    assert not watch([10**9 + 10**6 * min(step, 300) for step in range(2000)])
    assert not watch([10**9 + 10**8 * (step % 7) for step in range(2000)])
    assert not watch([10**9 + 10**3 * step for step in range(2000)])
