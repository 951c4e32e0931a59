"""The confidence bound of a sample, against published and closed-form values."""

import pytest

from syncflow_core.accuracy import lower_bound


@pytest.mark.parametrize("checked", [1, 10, 300, 5_000])
def test_without_an_error_it_is_the_closed_form(checked: int) -> None:
    assert lower_bound(checked, checked) == pytest.approx(0.05 ** (1 / checked))


@pytest.mark.parametrize(
    ("right", "checked", "bound"),
    [
        (9, 10, 0.6058),  # 1 - 0.3942: Clopper and Pearson's upper limit for 1 of 10
        (18, 20, 0.7174),
        (0, 10, 0.0),
        (0, 0, 0.0),
    ],
)
def test_with_errors_it_is_the_exact_binomial_bound(right: int, checked: int, bound: float) -> None:
    assert lower_bound(right, checked) == pytest.approx(bound, abs=5e-5)


def test_it_rises_with_the_sample_and_never_passes_the_share() -> None:
    bounds = [lower_bound(99 * n, 100 * n) for n in (1, 4, 16)]

    assert bounds == sorted(bounds)
    assert bounds[-1] < 0.99
