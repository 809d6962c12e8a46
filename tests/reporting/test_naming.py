import pytest
from reporting_cases import D1, D2, OFF, V2

from cmer.config.methods import MethodOptions
from cmer.methods.cmer.options import CmerOptions
from cmer.methods.layers.settings import EmbeddingOptions
from cmer.reporting.naming import differences, printed_name, slug
from cmer.reporting.paper import printed

PRINTED = printed(1)["method"].tolist()


def test_printed_names_are_method_names():
    assert [slug(name) for name in ("CLIP-adapter", "PE-RSITR", "CMER(ours)", "Linear probe")] == [
        "clip_adapter",
        "pe_rsitr",
        "cmer",
        "linear_probe",
    ]


@pytest.mark.parametrize(("options", "name"), [(OFF, "v1"), (V2, "v2"), (D1, "d1"), (D2, "d2")])
def test_variants_of_the_ablation(options, name):
    assert CmerOptions(**options).variant == name
    assert differences(CmerOptions(**options)) == []


def test_name_of_a_run():
    def cmer(**options):
        return printed_name("cmer", CmerOptions(**options), PRINTED)

    assert cmer(**D2) == "CMER(ours)"
    assert cmer(**V2) == "CMER v2"
    assert cmer() == "CMER"
    assert cmer(**D2 | {"text": "side_branch"}) == "CMER d2"
    assert cmer(**D2 | {"focus_adapter": False}) == "CMER"
    assert printed_name("linear_probe", MethodOptions(), PRINTED) == "Linear probe"
    assert printed_name("pair_scorer", MethodOptions(), PRINTED) == "Pair scorer"


def test_what_differs_from_the_printed_system():
    assert differences(CmerOptions()) == ["label dropout 0.5"]
    assert differences(CmerOptions(**D2 | {"text": "side_branch", "hidden": 96})) == ["text side branch", "hidden 96"]
    assert differences(CmerOptions(**D1 | {"queue_batches": 8})) == ["queue batches 8"]
    assert differences(CmerOptions(**D2 | {"focus_adapter": False})) == ["no focus adapter"]
    assert differences(EmbeddingOptions(soft_multi_positive=True)) == ["soft multi positive"]


def test_options_without_effect_are_no_difference():
    assert differences(CmerOptions(**OFF, hidden=96, margin=0.5, label_dropout=0.1)) == []
    assert differences(CmerOptions(**V2 | {"hidden": 96})) == ["hidden 96"]
    assert differences(CmerOptions(**V2 | {"hidden": 96}), ignoring=frozenset({"hidden"})) == []
