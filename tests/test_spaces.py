import itertools

import pytest
import torch

from einthoven.config import Space
from einthoven.spaces import Spaces, Views

ECG, CODES, TEXT = 24, 16, 12
FEATURES = {
    name: torch.randn(5, dim, generator=torch.Generator().manual_seed(dim))
    for name, dim in (("ecg", ECG), ("codes", CODES), ("text", TEXT))
}


def spaces(arrangement: str, codes: bool = True, text: bool = True) -> Spaces:
    torch.manual_seed(0)
    space = Space(arrangement=arrangement, dim=8, coarse_dim=6, hidden=10)
    return Spaces(space, ECG, CODES if codes else None, TEXT if text else None)


def dims(views: Views) -> dict[str, int | None]:
    return {name: None if view is None else view.shape[1] for name, view in vars(views).items()}


@pytest.mark.parametrize(
    ("arrangement", "coarse", "codes_coarse"), [("fac", 6, 6), ("disjoint", 6, None), ("shared", 8, 8)]
)
def test_three_modalities_meet_where_they_should(arrangement: str, coarse: int, codes_coarse: int | None) -> None:
    views = spaces(arrangement)(**FEATURES)
    assert dims(views) == {
        "ecg_fine": 8, "codes_fine": 8, "ecg_coarse": coarse, "codes_coarse": codes_coarse, "text_coarse": coarse,
    }  # fmt: skip
    for view in vars(views).values():
        assert view is None or torch.allclose(view.norm(dim=1), torch.ones(5))


def test_in_fac_coarse_is_made_of_fine_by_one_head_for_both() -> None:
    model = spaces("fac")
    views = model(**FEATURES)
    assert torch.equal(views.ecg_coarse, model.to_coarse(views.ecg_fine))
    assert torch.equal(views.codes_coarse, model.to_coarse(views.codes_fine))
    views.ecg_coarse.sum().backward()
    assert all(p.grad is not None for p in model.ecg.parameters()), "text teaches the fine space, too"


def test_in_disjoint_text_teaches_nothing_of_the_fine_space() -> None:
    model = spaces("disjoint")
    model(**FEATURES).ecg_coarse.sum().backward()
    assert all(p.grad is None for p in model.ecg.parameters())


def test_in_shared_fine_and_coarse_are_the_same_vectors() -> None:
    views = spaces("shared")(**FEATURES)
    assert torch.equal(views.ecg_fine, views.ecg_coarse) and torch.equal(views.codes_fine, views.codes_coarse)


@pytest.mark.parametrize("arrangement", ["fac", "disjoint", "shared"])
def test_two_modalities_have_one_space_whatever_the_arrangement(arrangement: str) -> None:
    assert dims(spaces(arrangement, codes=False)(FEATURES["ecg"], text=FEATURES["text"])) == {
        "ecg_fine": None, "codes_fine": None, "ecg_coarse": 8, "codes_coarse": None, "text_coarse": 8,
    }  # fmt: skip
    assert dims(spaces(arrangement, text=False)(FEATURES["ecg"], FEATURES["codes"])) == {
        "ecg_fine": 8, "codes_fine": 8, "ecg_coarse": None, "codes_coarse": None, "text_coarse": None,
    }  # fmt: skip


@pytest.mark.parametrize("arrangement", ["fac", "disjoint", "shared"])
def test_any_modality_may_be_absent_and_the_others_are_as_before(arrangement: str) -> None:
    model = spaces(arrangement)
    whole = vars(model(**FEATURES))
    for given in itertools.chain.from_iterable(itertools.combinations(FEATURES, n) for n in range(4)):
        views = vars(model(**{name: FEATURES[name] if name in given else None for name in FEATURES}))
        for name, view in views.items():
            assert (view is None) == (name.split("_")[0] not in given or whole[name] is None)
            assert view is None or torch.equal(view, whole[name])


def test_an_ecg_alone_has_the_fine_space_for_itself() -> None:
    assert dims(spaces("fac", codes=False, text=False)(FEATURES["ecg"])) == {
        "ecg_fine": 8, "codes_fine": None, "ecg_coarse": None, "codes_coarse": None, "text_coarse": None,
    }  # fmt: skip
