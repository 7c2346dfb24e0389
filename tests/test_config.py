from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from einthoven.config import Recipe, from_dict, load_recipe, to_dict
from einthoven.errors import EinthovenError

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda p: p.stem)
def test_shipped_recipes_load(path: Path) -> None:
    assert from_dict(Recipe, to_dict(load_recipe(path)), "again") == load_recipe(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nepoch = 3", "unknown key 'epoch'"),
        ("[trainnig]\nepochs = 3", "unknown key 'trainnig'"),
        ("[training]\nepochs = 3.5", "expected int"),
        ("[training]\nepochs = true", "expected int"),
        ("training = 3", "expected a table"),
        ("[evaluation]\nlabel_fractions = 0.1", "expected a list"),
        ("[training]\nbatch = 0", "batch"),
        ("[ecg]\nwidth = 12", "multiple of 8"),
        ("[ecg]\nkernel = 4", "kernel odd"),
        ("[text]\nfrozen = true", "pretrained"),
        ("[evaluation]\nlabel_fractions = [0.0]", "label_fractions"),
        ("not toml", "not a readable TOML"),
        ('extends = "nowhere.toml"', "no such recipe"),
        ('extends = "recipe.toml"', "circle"),
    ],
)
def test_mistakes_in_a_recipe_name_the_file_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(EinthovenError, match=message) as caught:
        load_recipe(path)
    assert str(tmp_path) in str(caught.value)


def test_extends_overrides_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[training]\nepochs = 3\nbatch = 7")
    (tmp_path / "b.toml").write_text('extends = "a.toml"\n[training]\nepochs = 4')
    recipe = load_recipe(tmp_path / "b.toml")
    assert (recipe.training.epochs, recipe.training.batch) == (4, 7)


@given(st.text(max_size=200))
def test_any_text_loads_or_is_refused_politely(tmp_path_factory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        assert isinstance(load_recipe(path), Recipe)
    except EinthovenError as error:
        assert str(path) in str(error)
