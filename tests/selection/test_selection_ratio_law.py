import numpy as np
import pyarrow as pa
import pytest

from tamis.errors import DataError, UsageError
from tamis.selection.ratio_law import DCPTLaw, FittedRatioLaw, downstream, propose_ratio

TRUE = {"E": 1.5, "B": 2.0, "eta": 0.3, "beta": 0.4, "C": 0.2, "gamma": 0.5, "eps": 0.1}


def law(parameters=TRUE, ratios=(0.0, 1.0), max_tokens=100_000.0):
    return FittedRatioLaw(dict(parameters), np.array(ratios), max_tokens, {}, 10.0)


def pilots(ratios=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0), tokens=(1e3, 1e4, 1e5), noise=0.0):
    ratio, num_tokens = (a.ravel() for a in np.meshgrid(ratios, tokens))
    loss = law().predict(num_tokens, ratio) + noise * np.sin(np.arange(len(ratio)) * 5)
    return pa.table({"num_tokens": num_tokens, "ratio": ratio, "loss": loss})


def test_hand_worked():
    ratios = np.array([0.2, 0.5, 0.8])
    assert law().predict(1000, ratios) == pytest.approx([1.94301, 1.86070, 1.82884], abs=1e-5)
    assert law().predict(100_000, ratios) == pytest.approx([1.87749, 1.77444, 1.72952], abs=1e-5)


def test_pilots_of_the_law_are_recovered_between_them():
    found = DCPTLaw(num_starts=20).fit(pilots(), seed=0)
    ratios, tokens = np.meshgrid(np.linspace(0, 1, 11), [2e3, 5e4, 3e5])
    assert found.predict(tokens, ratios) == pytest.approx(law().predict(tokens, ratios), rel=0.02)
    assert (np.diff(found.predict(np.geomspace(1e3, 1e6, 20), 0.5)) < 0).all()
    assert found.errors["law"] < found.errors["quadratic"]
    assert found.errors["law"] < found.errors["nearest_ratio"]
    again = DCPTLaw(num_starts=20).fit(pilots(), seed=0)
    assert again.parameters == found.parameters


def test_shuffled_losses_are_not_explained():
    table = pilots(noise=0.003)
    loss = table["loss"].to_numpy()
    mixed = table.set_column(2, "loss", pa.array(loss[np.argsort(np.sin(np.arange(len(loss)) * 12.9))]))
    real = DCPTLaw(num_starts=3).fit(table, seed=0).errors["law"]
    assert DCPTLaw(num_starts=3).fit(mixed, seed=0).errors["law"] > 5 * real


def test_sizes_of_models():
    table = pilots()
    parts = []
    for size in (1e6, 1e7, 1e8):
        lower = pa.array(table["loss"].to_numpy() + 50 / size**0.3)
        parts.append(
            table.set_column(2, "loss", lower).append_column("num_params", pa.array(np.full(len(table), size)))
        )
    found = DCPTLaw(num_starts=8).fit(pa.concat_tables(parts), seed=0)
    assert found.predict(1e4, 0.5, 3e7) == pytest.approx(law().predict(1e4, 0.5) + 50 / 3e7**0.3, rel=0.02)
    with pytest.raises(UsageError, match="num_params"):
        found.predict(1e4, 0.5)
    one = DCPTLaw(num_starts=5).fit(parts[0], seed=0)  # one size: no term for it
    assert "A" not in one.parameters


def test_jacobian_by_differences():
    from scipy.optimize import approx_fprime

    from tamis.selection.ratio_law import _losses, _pilots

    columns = _pilots(pilots().append_column("num_params", pa.array(np.tile([1e6, 1e7], 9))))
    theta = np.log([1.5, 0.2, 0.3, 0.4, 0.2, 0.5, 0.1, 0.3, 0.2])
    wanted = approx_fprime(theta, lambda x: _losses(x, columns)[0], 1e-7)
    assert _losses(theta, columns)[1] == pytest.approx(wanted, abs=1e-5)


def test_plan_takes_the_lowest_domain_loss_the_general_loss_allows():
    domain, general = law(), law(TRUE | {"C": 0.3})
    free = propose_ratio(domain, general, max_general_rise=9.0, num_tokens=1e5)
    assert free.ratio == 1.0
    tied = propose_ratio(domain, general, max_general_rise=0.1, num_tokens=1e5)
    assert 0 < tied.ratio < 1
    assert tied.general_rise == pytest.approx(0.1, abs=2e-3)
    none = propose_ratio(domain, general, max_general_rise=0.0, num_tokens=1e5)
    assert none.ratio == 0.0
    narrow = propose_ratio(law(ratios=(0.2, 0.7)), law(ratios=(0.0, 0.5)), 9.0, 1e5)
    assert narrow.ratio == pytest.approx(0.7)
    assert narrow.curve["ratio"][0].as_py() == pytest.approx(0.5)
    with pytest.raises(DataError, match="Fit both to the same pilots"):
        propose_ratio(law(ratios=(0.8, 1.0)), law(ratios=(0.5, 1.0)), 1.0, 1e5)
    with pytest.raises(UsageError, match="max_general_rise -1"):
        propose_ratio(domain, general, -1, 1e5)
    with pytest.raises(UsageError, match="run longer pilots"):
        propose_ratio(domain, general, 1, 1e7)


def test_bad_pilots():
    with pytest.raises(DataError, match="9 at 3 ratios"):
        DCPTLaw().fit(pilots(ratios=(0.1, 0.5, 0.9)), seed=0)
    with pytest.raises(DataError, match="no column 'loss'"):
        DCPTLaw().fit(pilots().drop_columns(["loss"]), seed=0)
    table = pilots()
    with pytest.raises(DataError, match="1 values of loss are missing or out of range, first in row 0"):
        DCPTLaw().fit(
            table.set_column(2, "loss", pa.array([None, *table["loss"].to_pylist()[1:]], pa.float64())), seed=0
        )
    with pytest.raises(UsageError, match="ratios from 0 to 1"):
        law().predict(1e4, 1.5)


def test_downstream_measure_that_falls_is_rejected():
    tokens = np.geomspace(1e4, 1e8, 8)
    good = np.log(0.2 * tokens**0.3) ** 0.7
    found = downstream(tokens, good, noise=0.01)
    assert found.is_aligned
    assert found.error < 1e-3
    assert found.parameters[1] == pytest.approx(0.3, rel=0.2)
    falling = good.copy()
    falling[5] -= 0.5
    assert not downstream(tokens, falling, noise=0.01).is_aligned
    assert downstream(tokens, falling, noise=1.0).is_aligned is False  # no gain above the noise either
    assert not downstream(tokens, np.full(8, 0.4), noise=0.01).is_aligned
    with pytest.raises(DataError, match="4 or more"):
        downstream(tokens[:3], good[:3], 0.1)
