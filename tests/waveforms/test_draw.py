import re
import xml.etree.ElementTree as ElementTree

import numpy as np

from einthoven.schema import LEADS
from einthoven.waveforms.draw import Shade, draw_svg

SVG = "{http://www.w3.org/2000/svg}"


def drawn(signal, rate=100, title="ECG"):
    return ElementTree.fromstring(draw_svg(signal, rate, title))


def traces(svg):
    return [p.get("d") for p in svg.iter(f"{SVG}path") if p.get("stroke-linejoin")]


def points(path):
    return np.array(re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path), float)


def test_one_millivolt_is_ten_millimetres_and_one_second_twenty_five():
    signal = np.zeros((12, 1000))
    signal[LEADS.index("I"), 100] = 1.0
    found = points(traces(drawn(signal))[0])
    assert len(found) == 250  # a quarter of ten seconds
    assert found[0, 1] - found[100, 1] == 10
    assert found[100, 0] - found[0, 0] == 25


def test_all_leads_are_drawn_and_the_rhythm_strip_is_lead_two():
    svg = drawn(np.zeros((12, 1000)))
    assert len(traces(svg)) == 13 and len(points(traces(svg)[-1])) == 1000
    names = [t.text for t in svg.iter(f"{SVG}text")]
    assert set(LEADS) <= set(names) and names.count("II") == 2
    assert svg.get("viewBox") == "0 0 260 135" and svg.get("width") == "260mm"


def test_a_lead_name_lies_over_its_trace_with_a_rim_of_paper():
    signal = np.zeros((12, 1000))
    signal[LEADS.index("V6")] = np.nan
    parts = list(drawn(signal))
    sheet = next(part.get("fill") for part in parts if part.tag == f"{SVG}rect")
    names = [(i, part) for i, part in enumerate(parts) if part.tag == f"{SVG}text" and part.text in LEADS]
    assert len(names) == 13
    for i, name in names:
        if name.text == "V6":
            assert name.get("stroke") is None  # no trace to be read on
            continue
        assert (name.get("paint-order"), name.get("stroke")) == ("stroke", sheet)
        assert any(part.get("stroke-linejoin") for part in parts[i - 2 : i])


def test_columns_continue_in_time():
    starts = [points(path)[0, 0] for path in traces(drawn(np.zeros((12, 1000))))[:4]]
    assert starts == [10, 72.5, 135, 197.5]


def test_missing_leads_stay_blank_and_missing_samples_leave_a_gap():
    signal = np.zeros((12, 1000))
    signal[LEADS.index("II")] = np.nan
    signal[LEADS.index("I"), 10:20] = np.nan
    found = traces(drawn(signal))
    assert len(found) == 12  # eleven leads, and the strip shows V1 instead
    assert found[0].count("M") == 2 and len(points(found[0])) == 240
    assert len(traces(drawn(np.full((12, 1000), np.nan)))) == 0


def test_long_and_short_recordings_fit():
    assert drawn(np.zeros((12, 30 * 500)), 500).get("viewBox") == "0 0 260 135"
    assert drawn(np.zeros((12, 500))).get("viewBox") == "0 0 135 135"
    assert len(traces(drawn(np.zeros((12, 0))))) == 0


def test_the_title_is_escaped():
    text = draw_svg(np.zeros((12, 100)), 100, '<script>alert("x")</script>')
    assert "<script>" not in text and "&lt;script&gt;" in text


def test_a_shade_lies_where_its_lead_is_printed_at_its_time():
    shades = [Shade("II", 2.0, 3.0, 1.0), Shade("V1", 0.0, 5.0, 0.0), Shade("V1", 5.0, 6.0, 0.5)]
    svg = ElementTree.fromstring(draw_svg(np.zeros((12, 1000)), 100, "ECG", shades))
    found = [
        (float(r.get("x")), float(r.get("width")), float(r.get("y")), float(r.get("fill-opacity")))
        for r in svg.iter(f"{SVG}rect")
        if r.get("fill-opacity")
    ]
    # lead II is printed twice: up to 2.5 s in its row, and whole below; V1 is printed from 5 s to 7.5 s
    assert found == [(135, 25, 11, 0.28), (60, 12.5, 41, 0.5), (60, 25, 101, 0.5)]
