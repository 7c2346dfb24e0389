from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from einthoven.config import CODE_KINDS, Recipe, from_dict, load_recipe, to_dict
from einthoven.errors import EinthovenError

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").rglob("*.toml")), ids=lambda p: p.stem)
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
        ("[training]\nchunk = -1", "chunk"),
        ("[ecg]\nwidth = 12", "multiple of 8"),
        ("[ecg]\nkernel = 4", "kernel odd"),
        ("[augmentation]\nlead_subset = 1.5", "lead_subset, dropouts and queries"),
        ("[augmentation]\nnoise_mv = -0.1", "noise_mv"),
        ("[augmentation]\ntime_mask = 1.0", "time_mask"),
        ("[augmentation]\nmains_mv = 0.1", "100 Hz or less"),
        ("[text]\nfrozen = true", "pretrained"),
        ("[text]\nfrozen_layers = 2", "pretrained"),
        ("[evaluation]\nlabel_fractions = [0.0]", "label_fractions"),
        ("[vocabulary]\nfloor = 0", "floor above 0"),
        ('[vocabulary]\nicd9_table = "map.csv"', "icd9_as_icd10 where icd9_table"),
        ('[ecg]\nscaling = "z"', "scaling none or minmax"),
        ('[training]\nobjective = "byol"', "objective among contrast, simclr, patient, masked"),
        ('[training]\nobjective = "simclr"', r'where \[space\] modalities is \["ecg"\]'),
        ('[space]\nmodalities = ["ecg"]', "simclr, patient or masked"),
        ('[space]\nmodalities = ["text"]', 'modalities "ecg", alone or with'),
        ("[training]\nmask = 1.0", "mask between 0 and 1"),
        ('[space]\nmodalities = ["ecg"]\n[training]\nobjective = "patient"\nloss = "sigmoid"', "loss info_nce where"),
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


def test_settings_overrule_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('[pairing]\nnotes_after = 7.0\n[pairing.code_kinds]\nrest = ["*"]\n')
    settings = [
        "pairing.codes_after=0",
        'pairing.code_kinds.procedure=["PROCEDURE//ICD//*"]',
        'pairing.keywords=["heart"]',
        "source.diagnosis_time=admission",
    ]
    recipe = load_recipe(tmp_path / "r.toml", settings)
    assert (recipe.pairing.codes_after, recipe.pairing.notes_after) == (0.0, 7.0)
    assert recipe.pairing.keywords == ("heart",)
    assert recipe.pairing.code_kinds == {**CODE_KINDS, "procedure": ("PROCEDURE//ICD//*",), "rest": ("*",)}
    assert recipe.source.diagnosis_time == "admission"
    assert load_recipe(None, ["source.note_kinds.DS=surgical"]).source.note_kinds == {"DS": "surgical"}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("pairing.codes_after", "section.key=value"),
        ("codes_after=0", "section.key=value"),
        ("pairing.codes after=0", "section.key=value"),
        ("pairing.code_after=0", "unknown key 'code_after'"),
        ("pairing.code_kinds=all", "code_kinds: expected a table"),
        ("source.note_kind=dental", "note kinds among"),
        ("pairing.max_codes=-1", "max_codes"),
        ("pairing.notes_before=-1", "notes_before"),
        ("pairing.skew_minutes=nan", "skew_minutes"),
        ('pairing.note_kinds=["dental"]', "note_kinds of ecg"),
        ('pairing.code_kinds.static=["*"]', "not named static"),
        ('entities.labels=["diseases"]', "labels of disease"),
        ("entities.replace=true", "a lexicon where"),
        ("source.data_kind=invented", "data_kind among"),
        ("source.sampling_rate=0", "sampling_rate 0, expected 1 to 5000 Hz"),
        ("source.sampling_rate=5001", "sampling_rate 5001"),
    ],
)
def test_a_setting_that_is_none_is_refused(setting: str, said: str) -> None:
    with pytest.raises(EinthovenError, match=said):
        load_recipe(None, [setting])


def test_the_recipes_of_the_baselines_are_what_they_say() -> None:
    folder = ROOT / "recipes" / "baselines"
    ours = load_recipe(ROOT / "recipes" / "ecg-text.toml")
    for name in ("simclr", "patient", "masked"):
        recipe = load_recipe(folder / f"{name}.toml")
        assert (recipe.training.objective, recipe.space.modalities) == (name, ("ecg",))
        assert recipe.ecg == ours.ecg and replace(recipe.training, objective="contrast") == ours.training
    clip = load_recipe(folder / "clip.toml", ["text.pretrained=PATH"])
    assert (clip.text.pretrained, clip.text.frozen) == ("PATH", True)
    assert (clip.training.multi_positive, clip.training.words, clip.ecg.scaling) == (False, 0.0, "minmax")
    assert replace(clip.ecg, scaling="none") == ours.ecg
    same = replace(clip.training, multi_positive=ours.training.multi_positive, words=ours.training.words)
    assert same == ours.training
