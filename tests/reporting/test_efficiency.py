import pytest
from reporting_cases import D2, of, run

from cmer.errors import UserError
from cmer.io import read_sealed, write_sealed
from cmer.reporting.base import Files, TableSpec, build_table

CMER, ADAPTER = run("b.cmer", options=D2), run("b.clip_adapter", "clip_adapter")
LORA = run("b.clip_lora", "clip_lora")
STEPS = [
    {"run": f"b.{method}", "method": method, "saved_mb": saved, "peak_bytes": peak, "pairs_per_second": speed}
    for method, saved, peak, speed in (
        ("cmer", 10, 100_000_000, 30.0),
        ("clip_adapter", 40, 200_000_000, 20.0),
        ("clip_lora", 50, 400_000_000, 10.0),
    )
]
COUNTED = dict.fromkeys(("peak_bytes", "pairs_per_second", "pairs_per_second_low", "pairs_per_second_high"))


def table(rows, files):
    rows = [{name: row[name] for name in row if not name.startswith("dataset")} for row in rows]
    spec = TableSpec.model_validate({"kind": "table3", "runs": rows, "protocols": [], "seeds": []})
    return build_table(spec, Files(efficiency=files))


def ratios(row, to, prefix=""):
    return tuple(row.get(f"{prefix}{name}_ratio_to_{to}", "") for name in ("memory", "saved", "speed"))


def test_printed_rows_and_what_follows_from_them():
    result = table([], [])
    assert set(result["source"]) == {"paper"}
    assert set(result["status"]) == {"not run here"}
    cmer = of(result, method="CMER(ours)", backbone="ViT-B-16")
    assert (cmer["params_m"], cmer["memory_mb"], cmer["pairs_per_s"]) == ("2.72", "3488", "276")
    assert ratios(cmer, "clip_adapter") == ("0.51", "", "1.38")
    assert ratios(cmer, "clip_lora") == ("0.49", "", "2.01")
    assert ratios(of(result, method="CMER(ours)", backbone="ViT-L-14"), "clip_lora") == ("0.55", "", "2.37")
    huge = of(result, method="CMER(ours)", backbone="ViT-H-14")  # the paper has no reference on it
    assert ratios(huge, "clip_adapter") == ratios(huge, "clip_lora") == ("", "", "")
    assert "paper_count" in of(result, method="CLIP-adapter", backbone="ViT-L-14")["note"]


def test_ratios_to_the_references_of_the_same_file(write_profile):
    result = table([CMER, ADAPTER, LORA], [write_profile("b", STEPS)])
    cmer = of(result, run="b.cmer")
    assert (cmer["method"], cmer["status"]) == ("CMER(ours)", "run here")
    assert (cmer["saved_mb_per_pair"], cmer["saved_mb_fixed"], cmer["memory_mb"]) == ("10", "5", "100")
    assert (cmer["gmacs_forward_per_pair"], cmer["gmacs_backward_per_pair"]) == ("15", "10")
    assert ratios(cmer, "clip_adapter") == ("0.50", "0.25", "1.50")
    assert ratios(cmer, "clip_lora") == ("0.25", "0.20", "3.00")
    assert ratios(of(result, run="b.clip_lora"), "clip_adapter") == ("2.00", "1.25", "0.50")


def test_the_row_of_an_ensemble_says_whose_step_it_is(write_profile):
    ensemble = run("b.cmer", options={"text": "side_branch", "members": 3})
    row = of(table([ensemble], [write_profile("b", STEPS)]), run="b.cmer")
    assert "cost of a step of one of 3 members" in row["note"]
    assert "members" not in of(table([CMER], [write_profile("b", STEPS)]), run="b.cmer")["note"]


def test_every_run_of_a_reference_has_ratios_of_its_own(write_profile):
    maps = {"saved_mb": 25, "peak_bytes": 160_000_000, "pairs_per_second": 12.0}
    small = STEPS[2] | {"run": "b.clip_lora_in_projections"} | maps
    measured = [STEPS[0], STEPS[1], small, STEPS[2]]  # the second LoRA run is measured first
    of_a = [STEPS[0] | {"run": "a.cmer"}, small | {"run": "a.lora64", "peak_bytes": 50_000_000}]
    files = [write_profile("b", measured), write_profile("a", of_a)]
    runs = [CMER, ADAPTER, LORA, run("b.clip_lora_in_projections", "clip_lora"), run("a.cmer", options=D2)]
    result = table(runs, files)
    cmer, lora = of(result, run="b.cmer"), of(result, run="b.clip_lora")
    assert ratios(cmer, "clip_lora") == ("0.25", "0.20", "3.00")
    assert ratios(cmer, "clip_lora_in_projections") == ("0.62", "0.40", "2.50")
    assert ratios(lora, "clip_lora_in_projections") == ("2.50", "2.00", "0.83")
    assert ratios(cmer, "clip_lora", "paper_") == ("0.49", "", "2.01")
    assert ratios(cmer, "lora64") == ("", "", "")  # of another backbone
    assert ratios(of(result, run="a.cmer"), "lora64") == ("2.00", "0.40", "2.50")
    assert ratios(of(result, run="a.cmer"), "clip_lora") == ("", "", "")
    assert set(result[result["source"] == "paper"]["memory_ratio_to_clip_lora_in_projections"]) == {""}
    names = ["clip_adapter", "clip_lora", "clip_lora_in_projections", "lora64"]
    columns = [name for name in result if "_ratio_to_" in name and not name.startswith("paper_")]
    assert columns == [f"{what}_ratio_to_{name}" for name in names for what in ("memory", "saved", "speed")]
    assert result.to_csv() == table(runs, files[::-1]).to_csv()


def test_a_printed_row_is_run_here_if_one_of_its_batches_is_timed(write_profile):
    small = {"run": "b.cmer", "method": "cmer", "saved_mb": 10, "batch": 2} | COUNTED
    for steps, status in (([small, STEPS[0] | {"batch": 4}], "run here"), ([small], "counted here")):
        result = table([CMER], [write_profile("b", steps)])
        assert of(result, source="paper", method="CMER(ours)", backbone="ViT-B-16")["status"] == f"{status}: b.cmer"
        assert set(result[result["run"] == "b.cmer"]["status"]) == {"counted here", status}


def test_only_ratios_of_the_paper_stand_beside_a_row_of_its_system(write_profile):
    other = run("b.other", options=D2 | {"hidden": 96})
    steps = [*STEPS, STEPS[0] | {"run": "b.other"}]
    result = table([CMER, other, ADAPTER], [write_profile("b", steps)])
    cmer = of(result, run="b.cmer")
    assert ratios(cmer, "clip_adapter", "paper_") == ("0.51", "", "1.38")
    assert ratios(cmer, "clip_lora", "paper_") == ("0.49", "", "2.01")
    assert ratios(of(result, run="b.other"), "clip_adapter", "paper_") == ("", "", "")
    assert (
        ratios(of(result, source="paper", method="CMER(ours)", backbone="ViT-B-16"), "clip_lora", "paper_") == ("",) * 3
    )
    assert of(result, source="paper", method="CMER(ours)", backbone="ViT-B-16")["status"] == "run here: b.cmer"
    assert of(result, source="paper", method="CMER(ours)", backbone="ViT-L-14")["status"] == "not run here"
    assert "paper_count" in of(result, run="b.clip_adapter")["note"]


@pytest.mark.parametrize("other", [{"batch": 4}, {"setting": "paper_like"}])
def test_a_row_under_another_setting_or_batch_is_no_reference(write_profile, other):
    result = table([CMER], [write_profile("b", [STEPS[0], STEPS[1] | other])])
    cmer = of(result, run="b.cmer")
    assert ratios(cmer, "clip_adapter") == ratios(cmer, "clip_lora") == ("", "", "")


def test_a_row_on_another_backbone_is_no_reference(write_profile):
    files = [write_profile("b", STEPS[:1]), write_profile("a", STEPS[1:])]
    assert ratios(of(table([CMER], files), run="b.cmer"), "clip_adapter") == ("", "", "")


def test_counted_rows_say_so(write_profile):
    result = table([CMER, ADAPTER], [write_profile("b", [step | COUNTED for step in STEPS])])
    cmer = of(result, run="b.cmer")
    assert cmer["status"] == "counted here"
    assert (cmer["memory_mb"], cmer["pairs_per_s"], cmer["pairs_per_s_low"], cmer["note"]) == ("", "", "", "")
    assert (cmer["saved_mb_per_pair"], cmer["gmacs_forward_per_pair"]) == ("10", "15")
    assert ratios(cmer, "clip_adapter") == ("", "0.25", "")


def test_what_memory_means_depends_on_the_device(write_profile):
    on_gpu = write_profile("g", [STEPS[0] | {"run": "g.cmer", "peak_reserved_bytes": 123_456_789}], "cuda: Toy GPU")
    result = table([CMER, CMER | {"name": "g.cmer"}], [write_profile("b", STEPS), on_gpu])
    assert of(result, run="b.cmer")["note"].startswith("memory: how far the process rose")
    gpu = of(result, run="g.cmer")
    assert gpu["note"].startswith("memory: the most that tensors took")
    assert (gpu["reserved_mb"], gpu["device"]) == ("123.5", "cuda: Toy GPU")


def test_every_setting_and_batch_is_a_row_in_any_order_of_files(write_profile):
    cases = [{"setting": setting, "batch": batch} for setting in ("paper_like", "today") for batch in (2, 4)]
    steps = [step | case for step in STEPS for case in cases]
    files = [write_profile("b", steps), write_profile("t", [STEPS[0] | {"run": "t.cmer"}])]
    result = table([CMER, ADAPTER, CMER | {"name": "t.cmer"}], files)
    assert result["run"].tolist() == [""] * 9 + ["b.cmer"] * 4 + ["b.clip_adapter"] * 4 + ["t.cmer"]
    assert result["batch"].tolist()[9:13] == ["2", "4", "2", "4"]
    assert result.to_csv() == table([CMER, ADAPTER, CMER | {"name": "t.cmer"}], files[::-1]).to_csv()


def test_files_that_do_not_serve_are_named(write_profile, tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.json does not exist"):
        table([CMER], [tmp_path / "nowhere.json"])
    file = write_profile("b", STEPS)
    with pytest.raises(UserError, match=r"measures g\.cmer; run `cmer profile`"):
        table([CMER | {"name": "g.cmer"}], [file])
    whole = read_sealed(file, "cmer profile")
    for part, words in (
        (whole | {"rows": [whole["rows"][0] | {"peak_bytes": "much"}]}, r"rows\.0\.peak_bytes"),
        ({"rows": whole["rows"]}, "device"),
        (whole | {"saved": whole["saved"][1:]}, r"saved bytes of .*b\.cmer"),
    ):
        write_sealed(file, part, "cmer profile")
        with pytest.raises(UserError, match=rf"(?s)b\.json.*{words}"):
            table([CMER], [file])
    file.write_text(file.read_text()[:100])
    with pytest.raises(UserError, match=r"b\.json is not valid JSON"):
        table([CMER], [file])


def test_a_fixed_part_below_zero_is_zero_only_if_matrices_of_the_batch_explain_it(write_profile):
    def kept(entry: int, fixed: int) -> str:
        """Of bytes that are 10^7 B + fixed + entry B^2, by the line through two batch sizes."""
        sizes = (4, 8)
        low, high = (1e7 * size + fixed + entry * size**2 for size in sizes)
        file = write_profile("b", [STEPS[0] | {"batch": size} for size in sizes])
        profile = read_sealed(file, "cmer profile")
        slope = (high - low) / (sizes[1] - sizes[0])
        profile["saved"][0] |= {"bytes_per_pair": slope, "fixed_bytes": low - sizes[0] * slope}
        write_sealed(file, profile, "cmer profile")
        return of(table([CMER], [file]), run="b.cmer", batch="4")["saved_mb_fixed"]

    assert kept(16, 0) == kept(128, 0) == kept(16, 8) == "0"
    assert kept(16, 4_000) == "0.003488"
    assert kept(0, -5_000) == "-0.005"
    assert kept(200, 0) == "-0.0064"
