"""The figures of transfer draw the tables' numbers, and the page states the same in words."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from browsing import check_paper, needs_chromium, until

from mechvit.analysis import CorruptionSpectrum, Transfer, transfer
from mechvit.analysis.robustness.transfer import CONTRASTS as contrasts
from mechvit.data import Corruption, Mixture
from mechvit.visualization import render_transfer
from mechvit.visualization.figures import transfer_matrix, transfer_means, transfer_similarity
from mechvit.visualization.figures.transfers import CONTRAST_TITLES, TINTS
from mechvit.visualization.report import transfer_captions as transfer_readings
from mechvit.visualization.style import DARK, in_order, in_sentence, title_of

IMAGES = 300
TESTED = {
    "clean": 0.9,
    "gaussian_noise_4": 0.4,
    "speckle_noise_5": 0.5,
    "box_blur_4": 0.5,
    "gaussian_blur_4": 0.4,
    "fog_1": 0.7,
}
TRAINED = {
    key: Corruption.parse(key) for key in ("clean", "gaussian_noise_4", "speckle_noise_5", "box_blur_4", "fog_1")
} | {"mixture_of_all": Mixture((Corruption("gaussian_noise", 4), Corruption("box_blur", 4)), "mixture_of_all")}
SHARES = {
    "itself": 0.3,
    "group": 0.2,
    "across": -0.05,
    "member": 0.25,
    "outside": 0.02,
    "clean": -0.04,
    "control": 0.01,
}


@pytest.fixture(scope="module")
def found() -> Transfer:
    """Planted: much within a group, a loss across; nothing gained on fog."""
    from mechvit.analysis.robustness.transfer_pairs import relation

    generator, rows = np.random.default_rng(0), []
    for model in ("base", *TRAINED):
        for key, start in TESTED.items():
            gain = 0.0 if model == "base" else SHARES[relation(TRAINED[model], Corruption.parse(key))]
            right = round(IMAGES * (start + (0.0 if key == "fog_1" and gain > 0 else gain)))
            rank = np.full(IMAGES, 1)
            rank[generator.permutation(IMAGES)[:right]] = 0
            ids = np.arange(IMAGES)
            rows.append(pd.DataFrame({"model": model, "corruption": key, "image_id": ids, "rank": rank}))
    peaks = {"gaussian_noise_4": 7, "speckle_noise_5": 6, "box_blur_4": 2, "gaussian_blur_4": 1, "fog_1": 0}
    spectra = [
        (Corruption.parse(key), CorruptionSpectrum(torch.arange(1), torch.arange(8) / 16, torch.eye(8)[[peak]]))
        for key, peak in peaks.items()
    ]
    return transfer(pd.concat(rows), trained=TRAINED, spectra=spectra, resamples=200)


@pytest.fixture(scope="module")
def folder(found, tmp_path_factory):
    """The files of a finished run that its page needs."""
    run = tmp_path_factory.mktemp("runs") / "planted"
    (run / "tables").mkdir(parents=True)
    for end, frame in (("", found.matrix), ("_means", found.means), ("_similarity", found.similarity)):
        frame.to_parquet(run / "tables" / f"transfer{end}.parquet", index=False)
    stage = {"name": "tables", "seconds": 1.5, "peak_memory_bytes": 2**30}
    moment = "2026-01-01T00:00:00+00:00"
    about = {
        "versions": {"mechvit": "0"},
        "hardware": {"cores": 2},
        "seeds": {"bootstrap": 0},
        "stages": [stage],
        "started": moment,
        "finished": moment,
    }
    (run / "provenance.json").write_text(json.dumps(about))
    (run / "config.json").write_text(json.dumps({"out": "planted"}))
    return run


def rows_of(found: Transfer) -> pd.DataFrame:
    return found.matrix.set_index(["trained_on", "tested_on"])


def test_gains_match_table(found):
    (heat,) = transfer_matrix(found.matrix).data
    rows = rows_of(found)
    models, tested = list(dict.fromkeys(found.matrix["trained_on"])), list(dict.fromkeys(found.matrix["tested_on"]))
    assert list(heat.y) == ["Base, accuracy", "Clean (control)", *(title_of(key, short=True) for key in models[2:])]
    assert list(heat.x) == [title_of(key, short=True) for key in tested]
    assert heat.zmin == -heat.zmax
    assert heat.colorbar.title.text == "change over the base, percentage points (positive: better)"
    for i, model in enumerate(models):
        for j, key in enumerate(tested):
            row, text = rows.loc[(model, key)], heat.text[i][j]
            assert heat.z[i][j] == pytest.approx(100 * row["gain"])
            assert text.startswith("<b>") == (row["gain_low"] > 0 or row["gain_high"] < 0)
            number = text.replace("<b>", "").replace("</b>", "").replace("−", "-")
            if model == "base":
                assert number == f"{row['accuracy']:.1%}"
            else:
                assert float(number) == pytest.approx(100 * row["gain"], abs=0.051)
            wanted = [row["accuracy"], *(100 * row[["gain", "gain_low", "gain_high"]])]
            assert list(heat.customdata[i][j][:4]) == pytest.approx(wanted)


def test_shares_match_table_and_are_empty_where_unknown(found):
    (heat,) = transfer_matrix(found.matrix, "transfer").data
    rows = rows_of(found)
    models, tested = list(dict.fromkeys(found.matrix["trained_on"]))[1:], list(dict.fromkeys(found.matrix["tested_on"]))
    tested.remove("clean")
    assert list(heat.x) == [title_of(key, short=True) for key in tested]
    empty = set()
    for i, model in enumerate(models):
        for j, key in enumerate(tested):
            value = rows.loc[(model, key), "transfer"]
            if np.isnan(value):
                empty.add(key)
                assert heat.text[i][j] == ""
                assert np.isnan(heat.z[i][j])
            else:
                shown = heat.text[i][j].replace("<b>", "").replace("</b>", "").replace("−", "-")
                assert float(shown) == pytest.approx(value, abs=0.0051)
    assert empty == {"gaussian_blur_4", "fog_1"}


def test_groups_are_set_apart(found):
    figure = transfer_matrix(found.matrix)
    lines = {(s.x0 if s.x0 == s.x1 else None, s.y0 if s.y0 == s.y1 else None) for s in figure.layout.shapes}
    across = {x for x, _ in lines if x is not None}
    down = {y for _, y in lines if y is not None}
    assert across == {0.5, 2.5, 4.5}, "after clean, noise and blur"
    assert down == {0.5, 1.5, 3.5, 4.5, 5.5}, "after base, clean, noise, blur and fog"
    named = {note.text for note in figure.layout.annotations}
    assert named == {"noise", "blur", "weather"}


def test_means_match_table(found):
    gain, share = transfer_means(found.means).data
    for place, row in enumerate(found.means.itertuples()):
        assert gain.y[place] == share.y[place] == place
        assert gain.x[place] == pytest.approx(100 * row.gain)
        assert gain.x[place] + gain.error_x.array[place] == pytest.approx(100 * row.gain_high)
        assert share.x[place] == pytest.approx(row.transfer, nan_ok=True)
    names = list(transfer_means(found.means).layout.yaxis.ticktext)
    assert "Another of its group (3)" in names
    assert "Another of its group − another group (16)" in names
    assert set(CONTRAST_TITLES) == {f"{first} minus {second}" for first, second in contrasts}


def test_scatter_matches_table(found):
    figure = transfer_similarity(found.matrix, found.similarity)
    pairs = found.matrix[found.matrix["spectral_distance"].notna()]
    for axis, quantity, factor in (("x", "gain", 100), ("x2", "transfer", 1)):
        points = {
            (round(x, 6), round(float(y), 6))
            for t in figure.data
            if t.xaxis == axis
            for x, y in zip(t.x, t.y, strict=True)
        }
        known = pairs[pairs[quantity].notna()]
        wanted = zip(known["spectral_distance"], known[quantity] * factor, strict=True)
        assert points == {(round(x, 6), round(y, 6)) for x, y in wanted}
    assert {t.marker.color for t in figure.data} <= set(TINTS.values())
    shown = found.similarity.set_index("quantity").loc["gain"]
    assert figure.layout.annotations[0].text == (
        f"<b>ρ = −{abs(shown['correlation']):.2f}, p = {shown['p_value']:.2g}</b>"
    )


def test_colours_have_a_dark_partner(found):
    for figure in (
        transfer_matrix(found.matrix),
        transfer_matrix(found.matrix, "transfer"),
        transfer_means(found.means),
        transfer_similarity(found.matrix, found.similarity),
    ):
        used = set(re.findall(r"#[0-9a-f]{6}", figure.update_layout(template=None).to_json()))
        assert len(used) > 3
        assert used <= set(DARK)


def test_what_lacks_is_named(found):
    for draw, frame, column in (
        (transfer_matrix, found.matrix, "trained_group"),
        (transfer_means, found.means, "pairs"),
        (lambda frame: transfer_similarity(frame, found.similarity), found.matrix, "spectral_distance"),
        (lambda frame: transfer_similarity(found.matrix, frame), found.similarity, "p_value"),
    ):
        with pytest.raises(ValueError, match=rf"lacks {column}"):
            draw(frame.drop(columns=column))
        with pytest.raises(ValueError, match="at least one row"):
            draw(frame.iloc[:0])
    with pytest.raises(ValueError, match="gain or transfer; got 'accuracy'"):
        transfer_matrix(found.matrix, "accuracy")


# words


def test_lead_says_what_was_planted(found):
    (text,) = transfer_readings.lead(found.means)
    rows = found.means.set_index("scope")
    assert f"another of its group by +{100 * rows.loc['group', 'gain']:.1f} points" in text
    assert rows.loc["group minus across", "gain_low"] > 0
    assert f"on one of another group by −{-100 * rows.loc['across', 'gain']:.1f} points" in text
    assert f"The difference is +{100 * rows.loc['group minus across', 'gain']:.1f} points" in text


def test_readings_name_the_extremes_and_the_unknown(found):
    (text,) = transfer_readings.gains(found.matrix)
    own = found.matrix[found.matrix["relation"] == "itself"]
    assert f"{(own['gain_low'] > 0).sum()} of 4 intervals lie above zero" in text
    others = found.matrix[found.matrix["relation"].isin(["group", "across"])]
    best = others.loc[others["gain"].idxmax()]
    assert f"from training on {in_sentence(best.trained_on)} to testing on {in_sentence(best.tested_on)}: +" in text
    best_share, unknown = transfer_readings.shares(found.matrix)
    assert best_share.count(";") == 2, "three corruptions have a gain of their own"
    assert "Left empty: fog 1," in unknown


def test_weak_relations_are_called_no_evidence():
    table = pd.DataFrame(
        [("gain", 20, -0.6, -0.7, -0.5, 0.01), ("transfer", 12, 0.2, -0.1, 0.4, 0.4)],
        columns=["quantity", "pairs", "correlation", "low", "high", "p_value"],
    )
    strong, weak = transfer_readings.similarity(table)
    assert "−0.60 (−0.70 to −0.50 over test images), p = 0.01" in strong
    assert strong.endswith("the further apart two spectra lie, the less is transferred.")
    assert weak.endswith("this is no evidence of a relation.")


def test_mixtures_have_titles_and_come_last():
    assert title_of("gaussian_blur_4+gaussian_noise_2") == "Gaussian blur 4 + gaussian noise 2"
    assert title_of("gaussian_blur_4+gaussian_noise_2", short=True) == "Blur 4 + noise 2"
    assert in_order(["zoom_blur_1", "box_blur_1+fog_2", "base"]) == ["base", "zoom_blur_1", "box_blur_1+fog_2"]


# the page


def test_page_is_whole_and_asks_for_nothing(folder, found):
    html = render_transfer(folder).read_text(encoding="utf-8")
    for plot in ("gains", "shares", "means", "similarity"):
        assert f'id="spec-{plot}"' in html
    assert transfer_readings.lead(found.means)[0] in html
    assert not re.search(r"<(script|link|img|iframe)[^>]*\b(src|href)=\"(?!data:|#)", html)
    assert [path.name for path in folder.iterdir() if path.suffix == ".part"] == []


def test_a_run_of_two_corruptions_says_what_is_left_out(folder, found, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "run")
    found.similarity.iloc[:0].to_parquet(tmp_path / "run" / "tables" / "transfer_similarity.parquet")
    html = render_transfer(tmp_path / "run").read_text(encoding="utf-8")
    assert "Left out: at least three corruptions are needed." in html
    assert 'id="spec-similarity"' not in html


def test_an_unfinished_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"lacks config\.json, provenance\.json, tables/transfer\.parquet"):
        render_transfer(tmp_path)


@needs_chromium
def test_page_draws_everything_offline(visit, folder):
    page = visit(render_transfer(folder))
    for plot in ("gains", "shares", "means", "similarity"):
        page.locator(f"#{plot}").scroll_into_view_if_needed()
        until(page, "name => document.querySelector(`#${name} .js-plotly-plot`)?._fullData?.length", plot)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("#theme").click()
    check_paper(page)


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


@needs_chromium
def test_names_are_text(visit, folder, tmp_path):
    """A mixture, a folder and a setting may be called anything."""
    run = tmp_path / "<b>bold<"
    shutil.copytree(folder, run)
    for end in ("", "_means", "_similarity"):
        path = run / "tables" / f"transfer{end}.parquet"
        pd.read_parquet(path).replace("mixture_of_all", HOSTILE).to_parquet(path, index=False)
    (run / "config.json").write_text(json.dumps({"out": HOSTILE, "long": "x" * 10_000}))
    path = render_transfer(run)
    html = path.read_text(encoding="utf-8")
    assert HOSTILE not in html
    assert html.count("<script") == html.count("</script>") == render_transfer(folder).read_text().count("<script")
    page = visit(path)  # fails on a dialog, a message or a request
    until(page, "() => document.querySelectorAll('.plot .main-svg').length >= 4")
    ticks = page.locator("#gains .ytick text").all_text_contents()
    assert any("<script>alert(1)" in tick for tick in ticks), ticks
    assert page.locator(".kicker").inner_text().startswith("Run <b>bold< ")
    assert HOSTILE in page.locator("#made").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("img").count() == 0
