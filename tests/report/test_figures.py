"""Line charts."""

import xml.etree.ElementTree as ET

from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.report.figures import Chart, Series, evenly, smooth, svg, ticks

FINITE = st.floats(-1e9, 1e9, allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(FINITE, st.floats(1e-6, 1e9))
def test_ticks_are_inside_rising_and_few(low: float, span: float) -> None:
    found = ticks(low, low + span)
    slack = (abs(low) + span) * 1e-9
    assert all(low - slack <= tick <= low + span + slack for tick in found)
    assert found == sorted(set(found))
    assert len(found) <= 7


def test_ticks_are_round() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0, 400) == [0, 100, 200, 300, 400]


def test_smoothing_keeps_a_straight_line_and_its_length() -> None:
    line = [(float(x), 2.0 * x) for x in range(100)]
    assert all(abs(y - 2 * x) < 1e-9 for x, y in smooth(line))
    assert len(smooth(line)) == 100


def test_a_smooth_curve_does_not_end_at_its_last_points_noise() -> None:
    noisy = [(float(x), float(x % 2)) for x in range(340)]
    assert all(abs(y - 0.5) < 0.2 for _, y in smooth(noisy))


def test_evenly_keeps_both_ends() -> None:
    picked = evenly(range(1000), 7)
    assert len(picked) == 7
    assert (picked[0], picked[-1]) == (0, 999)
    assert evenly([1, 2], 7) == (1, 2)


def test_a_chart_is_well_formed_and_its_text_is_escaped() -> None:
    points = tuple((float(x), x**0.5) for x in range(100))
    chart = Chart("<loss> & co", (Series('"a"<b>', points),), "nats", raw=True, marks=(50.0,))
    root = ET.fromstring(svg(chart))
    titles = [title.text or "" for title in root.iter() if title.tag.endswith("title")]
    assert any(title.startswith('"a"<b> · step 0') for title in titles)


def test_charts_of_one_point_of_equal_values_and_of_nothing() -> None:
    assert "lone" in svg(Chart("one", (Series("s", ((3.0, 2.0),)),)))
    ET.fromstring(svg(Chart("flat", (Series("s", ((1.0, 0.0), (2.0, 0.0))),), low=0.0)))
    assert svg(Chart("none", (Series("s", ()),))) == ""
