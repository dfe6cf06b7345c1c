"""The commands end to end, on a tiny base model: what they print, what they write, how they end."""

import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli_calls import SUBJECTS, Command, rows
from tiny_models import TEXTS


def test_a_run_writes_all_that_the_documentation_names(finished: Path) -> None:
    expected = ["run.json", "recipe.yaml", "data.json", "splits.csv", "checks.json", "results.json", "results.md"]
    assert [name for name in [*expected, "report.html"] if not (finished / name).is_file()] == []
    variant = finished / "variants" / "lora"
    names = ["metrics.json", "predictions.jsonl", "history.jsonl", "adapter/adapter_model.safetensors"]
    assert [name for name in names if not (variant / name).is_file()] == []
    assert not (variant / "checkpoints").exists()
    assert json.loads((finished / "run.json").read_text())["status"] == "complete"


def test_results_hold_the_documented_keys(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    assert list(results["variants"]) == ["majority", "tfidf", "untrained", "probe", "lora", "merged"]
    facts = ["trained_parameters", "total_parameters", "train_seconds", "useful_tokens_per_second"]
    facts += ["peak_memory_bytes", "samples_per_second", "validation"]
    scores = ["accuracy", "f1_weighted", "f1_macro", "precision_weighted", "recall_weighted", "log_loss"]
    for record in results["variants"].values():
        assert [name for name in facts if name not in record] == []
        assert [f"{s}{e}" for s in scores for e in ("", "_low", "_high") if f"{s}{e}" not in record["test"]] == []
    keys = {"a", "b", "metric", "difference", "low", "high", "p_value"}
    assert all(keys <= set(row) for row in results["comparisons"])
    assert results["verdict"]
    assert results["environment"]["torch"]


def test_every_pair_of_variants_is_compared(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    pairs = {frozenset((row["a"], row["b"])) for row in results["comparisons"] if row["metric"] == "accuracy"}
    assert len(pairs) == 15


def test_merging_changes_no_answer(finished: Path) -> None:
    merged = json.loads((finished / "results.json").read_text())["variants"]["merged"]
    assert merged["changed_predictions"] == 0
    assert merged["largest_logit_difference"] < 1e-3


def test_what_was_saved_was_loaded_back_by_plain_libraries(finished: Path) -> None:
    variants = json.loads((finished / "results.json").read_text())["variants"]
    assert [proof["loader"] for proof in variants["lora"]["proof"]] == ["adapter"]
    assert [proof["loader"] for proof in variants["merged"]["proof"]] == ["pipeline"]


def test_predictions_in_the_run_agree_with_the_scores(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    lines = (finished / "variants" / "lora" / "predictions.jsonl").read_text().splitlines()
    test = [row for row in map(json.loads, lines) if row["split"] == "test"]
    share = sum(row["label"] == row["prediction"] for row in test) / len(test)
    assert share == pytest.approx(results["variants"]["lora"]["test"]["accuracy"])


def test_the_splits_share_no_row(finished: Path) -> None:
    lines = (finished / "splits.csv").read_text().splitlines()[1:]
    numbers = [line.rsplit(",", 1)[1] for line in lines]
    assert len(numbers) == len(set(numbers)) == 120


def test_predict_prints_one_json_line_for_each_text(finished: Path, command: Command, tmp_path: Path) -> None:
    source = tmp_path / "texts.csv"
    source.write_text("text\nthe wave and the boat\na root\n", encoding="utf-8")
    ended = command("predict", finished, source)
    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert ended.code == 0
    assert [line["text"] for line in lines] == ["the wave and the boat", "a root"]
    assert set(lines[0]) == {"text", "label", "probabilities"}
    assert set(lines[0]["probabilities"]) == set(SUBJECTS)
    assert sum(lines[0]["probabilities"].values()) == pytest.approx(1)


def test_predict_of_the_merged_variant_gives_the_same_labels(finished: Path, command: Command, tmp_path: Path) -> None:
    source = tmp_path / "texts.txt"
    source.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    labels = [
        [json.loads(line)["label"] for line in command("predict", f"{finished}/{name}", source).out.splitlines()]
        for name in ("lora", "merged")
    ]
    assert len(labels[0]) == len(TEXTS)
    assert labels[0] == labels[1]


def test_predict_reads_standard_input(
    finished: Path, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "in").write_text("the wave\nthe bird\n", encoding="utf-8")
    with (tmp_path / "in").open(encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert len(command("predict", finished, "-").out.splitlines()) == 2


def test_evaluate_measures_other_rows(finished: Path, command: Command, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text(rows(30, start=500), encoding="utf-8")
    scores = json.loads(command("evaluate", f"{finished}/lora", other, "--json").out)
    assert scores["n"] == 30
    assert scores["accuracy_low"] <= scores["accuracy"] <= scores["accuracy_high"]


def test_evaluate_refuses_a_label_that_the_variant_does_not_know(
    finished: Path, command: Command, tmp_path: Path
) -> None:
    other = tmp_path / "other.csv"
    other.write_text("text,label\na wave,sea\na rose,garden\n", encoding="utf-8")
    ended = command("evaluate", finished, other)
    assert ended.code == 65
    assert "other.csv:2" in ended.err
    assert "garden" in ended.err


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_a_file_that_is_not_there_is_told_before_a_model_is_loaded(
    finished: Path, command: Command, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr("textlift.workflow.verbs.load", lambda *_, **__: pytest.fail("a model was loaded"))
    ended = command(verb, finished, "nowhere.csv")
    assert (ended.code, ended.err) == (66, "error: nowhere.csv: must be a data file; there is none of this name.\n")


def test_compare_puts_runs_in_one_table_and_one_report(finished: Path, command: Command, tmp_path: Path) -> None:
    ended = command("compare", finished, finished, "--output", tmp_path / "both")
    assert ended.code == 0
    assert "lora" in ended.out
    assert "<html" in (tmp_path / "both" / "report.html").read_text()


def test_export_writes_a_folder_that_loads_and_predicts(finished: Path, command: Command, tmp_path: Path) -> None:
    import textlift

    ended = command("export", finished, "--to", "merged", tmp_path / "merged", "--json")
    assert ended.code == 0
    assert json.loads(ended.out)["proof"][0]["loader"] == "pipeline"
    ours = textlift.load(tmp_path / "merged").predict(["the wave"])[0]
    assert ours.label == textlift.load(finished).predict(["the wave"])[0].label
    assert command("export", finished, "--to", "merged", tmp_path / "merged").code == 73


def test_a_run_is_not_overwritten_unasked(finished: Path, data_file: Path, command: Command) -> None:
    before = (finished / "results.json").read_bytes()
    ended = command("run", data_file, "--output", finished)
    assert ended.code == 73
    assert "--resume" in ended.err
    assert (finished / "results.json").read_bytes() == before


def test_overwrite_refuses_a_folder_that_is_no_run(data_file: Path, command: Command, tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("keep me")
    assert command("run", data_file, "--output", tmp_path, "--overwrite").code == 73
    assert (tmp_path / "letters.txt").read_text() == "keep me"


def test_resume_of_a_finished_run_measures_nothing_again(
    finished: Path, data_file: Path, base_folder: Callable[[str], Path], command: Command, tmp_path: Path
) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    (copy / "results.json").unlink()
    model = base_folder("bert")
    ended = command(
        "run", data_file, "--model", model, "--set", "training.epochs=2", "--output", copy, "--resume", "--json"
    )
    assert ended.code == 0, ended.err
    assert "baseline" not in ended.err
    before = json.loads((finished / "results.json").read_text())
    after = json.loads(ended.out)
    assert after["variants"] == before["variants"]
    assert after["comparisons"] == before["comparisons"]


@pytest.mark.parametrize("kernel", ["torch", "onednn"])
def test_resume_keeps_the_linear_kernel_with_which_the_run_began(
    finished: Path,
    data_file: Path,
    base_folder: Callable[[str], Path],
    command: Command,
    tmp_path: Path,
    kernel: str,
) -> None:
    import shutil

    from textlift.runtime import onednn_product

    if onednn_product() is None and kernel == "onednn":
        pytest.skip("torch is built without oneDNN")
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    (copy / "results.json").unlink()
    run = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**run, "environment": {"linear_kernel": kernel}}))
    model = base_folder("bert")
    ended = command(
        "run", data_file, "--model", model, "--set", "training.epochs=2", "--output", copy, "--resume", "--json"
    )
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["environment"]["linear_kernel"] == kernel


def test_resume_refuses_another_recipe(finished: Path, data_file: Path, command: Command) -> None:
    from textlift.runs import RunDirectory

    model = json.loads((finished / "results.json").read_text())["model"]["name"]
    ended = command("run", data_file, "--model", model, "--set", "training.epochs=3", "--output", finished, "--resume")
    assert ended.code == 65
    assert "same recipe" in ended.err
    assert RunDirectory(finished).read("run.json")["status"] == "complete"


def test_recipes_are_listed_with_what_they_are(command: Command) -> None:
    out = command("recipes").out
    names = ["demo", "emotion", "financial-news-topic", "hate-speech", "imdb", "sst2"]
    assert [line.split()[0] for line in out.splitlines()] == names


@pytest.mark.parametrize("name", ["demo", "emotion", "financial-news-topic", "hate-speech", "imdb", "sst2"])
def test_a_printed_recipe_can_be_edited_and_read(name: str, command: Command, tmp_path: Path) -> None:
    from textlift.recipe import read_recipe
    from textlift.workflow.planning import Request, resolve

    (tmp_path / "mine.yaml").write_text(command("recipes", name).out, encoding="utf-8")
    recipe = resolve(Request(str(tmp_path / "mine.yaml"), overrides=["training.max_grad_norm=0.5"]))
    assert recipe.variants == read_recipe(name).variants
    assert recipe.training.max_grad_norm == 0.5


@pytest.mark.parametrize("name", ["emotion", "financial-news-topic", "hate-speech", "imdb", "sst2"])
def test_a_published_job_has_its_published_variant_and_ours(name: str) -> None:
    from textlift.recipe import read_recipe

    variants = read_recipe(name).variants
    assert {"as-published", "lora"} <= set(variants)
    assert ("merged" in variants) == (name == "financial-news-topic")


def test_a_bug_keeps_its_traceback_and_ends_with_70(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[str]:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("textlift.recipe.recipe_names", broken)
    ended = command("recipes")
    assert ended.code == 70
    assert "Traceback" in ended.err
    assert "planted" in ended.err


def test_a_full_disk_anywhere_ends_with_74(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> list[str]:
        raise OSError(errno.ENOSPC, "No space left on device", "some/place")

    monkeypatch.setattr("textlift.recipe.recipe_names", full)
    ended = command("recipes")
    assert ended.code == 74
    assert "error: some/place: no space is left on the disk." in ended.err


def test_an_interrupt_ends_with_130(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("textlift.recipe.recipe_names", interrupted)
    assert command("recipes").code == 130


def test_a_run_that_is_not_there_is_named_with_the_nearest_one(finished: Path, command: Command) -> None:
    ended = command("predict", finished.parent / "finishd", "-")
    assert ended.code == 66
    assert "finishd: must be a run directory" in ended.err
    assert "'finished'" in ended.err


def test_a_variant_that_was_not_saved_is_told_with_those_that_were(finished: Path, command: Command) -> None:
    ended = command("predict", finished / "tfidf", "-")
    assert ended.code == 66
    assert "Saved: lora, merged" in ended.err


@pytest.mark.parametrize("target", ["file", "folder without weights"])
def test_a_pair_that_cannot_work_is_refused_before_anything_is_read(
    command: Command, tmp_path: Path, target: str, base_folder: Callable[[str], Path]
) -> None:
    model = base_folder("distilbert")
    if target == "folder without weights":
        model = tmp_path / "model"
        model.mkdir()
        (model / "config.json").write_text('{"model_type": "distilbert"}')
    ended = command(
        "run", tmp_path / "none.csv", "--method", "prefix-tuning", "--model", model, "--output", tmp_path / "r"
    )
    assert ended.code == 78
    assert ended.err.splitlines() == [
        "error: method prefix-tuning must fit the base model; distilbert has no place for keys and values of others "
        "(past_key_values).",
        "The nearest that works: --method p-tuning. `textlift methods` shows every pair.",
    ]
    assert not (tmp_path / "r").exists()


def test_a_configuration_that_names_no_architecture_is_left_to_the_later_checks(
    command: Command, data_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("[]")
    ended = command("run", data_file, "--method", "prefix-tuning", "--model", tmp_path, "--output", tmp_path / "r")
    assert ended.code == 65
    assert "config.json must hold an object" in ended.err


def test_a_method_that_is_named_is_trained_in_place_of_lora_and_its_budget_is_told(
    command: Command, data_file: Path, base_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    model, output = base_folder("electra"), tmp_path / "run"
    ended = command(
        "run", data_file, "--model", model, "--method", "bitfit", "--set", "training.max_tokens=900",
        "--set", "baselines=[]", "--output", output, "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert "not tested: electra is not among bert" in ended.err
    variants = json.loads(ended.out)["variants"]
    assert list(variants) == ["bitfit"]
    assert 0 < variants["bitfit"]["useful_tokens"] <= 900
    assert variants["bitfit"]["method"] == "bitfit"


def test_methods_are_listed_with_where_they_work(command: Command) -> None:
    ended = command("methods")
    assert ended.code == 0
    assert max(map(len, ended.out.splitlines())) <= 100
    assert "adapter of peft, merges; https://arxiv.org/abs/2106.09685" in ended.out
    cells = next(line.split() for line in ended.out.splitlines()[::-1] if line.startswith("prefix-tuning"))
    assert cells == ["prefix-tuning", "yes", "no", "yes", "no", "no", "yes", "yes", "yes", "yes"]


def test_one_method_is_told_with_range_default_and_meaning_of_its_options(command: Command) -> None:
    out = command("methods", "lora").out
    assert max(map(len, out.splitlines())) <= 100
    rows = {line.split()[0]: " ".join(line.split()) for line in out.splitlines() if line}
    assert rows["rank"] == "rank 1 to 1,024 8 Width of the two thin matrices."
    assert rows["alpha"].startswith("alpha above 0 16 ")
    assert rows["dropout"].startswith("dropout 0 to below 1 0 ")
    assert rows["bias"].startswith("bias none or lora_only none ")


def test_methods_as_json_tell_every_pair_in_every_precision(command: Command) -> None:
    from textlift.methods.registry import METHODS
    from textlift.models.families import FAMILIES

    told = json.loads(command("methods", "--json").out)
    assert [one["name"] for one in told] == list(METHODS)
    assert all(list(one["works_on"]) == list(FAMILIES) for one in told)
    one = json.loads(command("methods", "full", "--json").out)
    assert one == next(entry for entry in told if entry["name"] == "full")
    assert one["works_on"]["bert"]["fp32"] == {"works": True, "reason": "", "nearest": ""}
    assert one["works_on"]["bert"]["4-bit"]["nearest"] == "bf16"


def test_a_method_that_is_not_there_is_told_with_the_nearest(command: Command) -> None:
    ended = command("methods", "prefix")
    assert ended.code == 2
    assert "found 'prefix'. Did you mean 'prefix-tuning'?" in ended.err
