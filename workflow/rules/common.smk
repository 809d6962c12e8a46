# What a step reads (`spec`) and what it executes (`code`). Snakemake plans a step again when one of
# its params changes; it cannot see imported packages, hence the digests. Nothing here imports torch.
import json
import shlex
from functools import cache
from pathlib import Path

from cmer.config import TITLES
from cmer.data.cards import card, fingerprint
from cmer.io import digest
from cmer.provenance import code_digest
from cmer.profiling import MODULES as PROFILED
from cmer.retrieval import MODULES as EMBEDDING
from cmer.training import MODULES as TRAINING

# `cmer` of the environment that runs Snakemake, whether or not that environment is activated.
shell.prefix(f'export PATH="{sys.prefix}/bin:$PATH"; set -euo pipefail; ')


def as_json(data):
    return json.dumps(data, sort_keys=True, ensure_ascii=False)


# --- specs: JSON of exactly what a step reads. Printed names and prompts are the tables' and the captions' alone. ----


def data_settings(dataset):
    return CONFIG.datasets[dataset].model_dump(exclude={"template", "exclude"}) | {"title": dataset}


def backbone_settings(backbone):
    return CONFIG.backbones[backbone].model_dump() | {"printed": backbone}


def data_spec(wildcards):
    return as_json(data_settings(wildcards.dataset))


def source_spec(wildcards):
    data = CONFIG.datasets[wildcards.dataset]
    return as_json(data.model_dump(include={"source", "sources"}) | {"title": wildcards.dataset})


def card_digest(wildcards):
    """Of what is known of a published dataset, which is data and not in the digest of the code."""
    source = CONFIG.datasets[wildcards.dataset].source
    if source not in TITLES:
        return ""
    layout = card(source).model_dump(mode="json", include={"annotations", "images", "labels"})
    return digest([layout, fingerprint(source).model_dump()])


def exclusion_spec(wildcards):
    return as_json({"dataset": wildcards.dataset, "exclude": CONFIG.datasets[wildcards.dataset].exclude})


def prompt_spec(wildcards):
    template = CONFIG.datasets[wildcards.dataset].template
    return as_json(data_settings(wildcards.dataset) | {"template": template})


def features_spec(wildcards):
    return as_json(
        {"dataset": data_settings(wildcards.dataset), "backbone": backbone_settings(wildcards.backbone)}
    )


def run_spec(wildcards):
    spec = CONFIG.spec(wildcards.run, wildcards.dataset, int(wildcards.seed)).model_dump()
    spec["backbone"] = backbone_settings(CONFIG.run(wildcards.run).backbone)
    spec["source"] = spec["source"] and data_settings(wildcards.dataset)
    return as_json(spec)


def profiled_runs(backbone):
    """The runs of Table 3 on a backbone."""
    names = [name for table in CONFIG.tables if table.number == 3 for name in table.runs]
    return [run for run in map(CONFIG.run, names) if run.backbone == backbone]


def profile_spec(wildcards):
    rows = [
        {"run": run.name, "method": run.method, "options": run.options.model_dump()}
        for run in profiled_runs(wildcards.backbone)
    ]
    return as_json(
        {
            "name": wildcards.backbone,
            "backbone": backbone_settings(wildcards.backbone),
            "rows": rows,
            "profile": CONFIG.profile.model_dump(exclude={"count_only"}),
            "count_only": wildcards.backbone in CONFIG.profile.count_only,
        }
    )


def table_of(wildcards):
    """The table that is made. Figures are of Table 3's runs."""
    number = int(wildcards.get("number", 3))
    return next(table for table in CONFIG.tables if table.number == number)


def table_rows(wildcards):
    """Pairs of a run and a dataset: the measured rows of a table, in the config's order."""
    table = table_of(wildcards)
    runs = [CONFIG.run(name) for name in table.runs]
    return [(run, dataset) for dataset in table.datasets for run in runs if dataset in run.datasets]


def tabled(run):
    return {
        "name": run.name,
        "backbone_printed": CONFIG.backbones[run.backbone].printed,
        "method": run.method,
        "options": run.options.model_dump(),
    }


def tabled_rows(wildcards):
    return [
        tabled(run) | {"dataset": dataset, "dataset_title": CONFIG.datasets[dataset].title}
        for run, dataset in table_rows(wildcards)
    ]


def table_spec(wildcards):
    table = table_of(wildcards)
    if table.number == 3:
        rows = [tabled(CONFIG.run(name)) for name in table.runs]
        return as_json({"number": 3, "runs": rows, "protocols": [], "seeds": []})
    rows = tabled_rows(wildcards)
    return as_json({"number": table.number, "runs": rows, "protocols": table.protocols, "seeds": CONFIG.seeds})


def figure_spec(wildcards):
    return as_json({"runs": tabled_rows(wildcards), "seeds": CONFIG.seeds})


# --- code: digests of the sources that a step executes --------------------------------------------------------------


code_digest = cache(code_digest)  # asked for every job: half of the time that planning takes


def extraction_code(wildcards):
    kind = CONFIG.backbones[wildcards.backbone].kind
    return code_digest("cmer.features.extract", f"cmer.backbones.{kind}")


def run_code(wildcards, *modules):
    run = CONFIG.run(wildcards.run)
    kind = CONFIG.backbones[run.backbone].kind
    return code_digest(f"cmer.methods.{run.method}", f"cmer.backbones.{kind}", *modules)


def training_code(wildcards):
    return run_code(wildcards, *TRAINING)


def embedding_code(wildcards):
    return run_code(wildcards, *EMBEDDING)


def profile_code(wildcards):
    methods = {f"cmer.methods.{run.method}" for run in profiled_runs(wildcards.backbone)}
    kind = CONFIG.backbones[wildcards.backbone].kind
    return code_digest(*PROFILED, *methods, f"cmer.backbones.{kind}")


# --- inputs -------------------------------------------------------------------------------------------------------


DRAWN = [name for name, data in CONFIG.datasets.items() if data.source == "demo"]
USED = [name for name in CONFIG.datasets if any(name in run.datasets for run in CONFIG.runs)]
FETCHED = [name for name, data in CONFIG.datasets.items() if data.source in TITLES and data.root is None]


def drawn_or_fetched(wildcards):
    """A dataset's own files. What lies in a user's folder stays there: its path differs from machine to machine."""
    kept = wildcards.dataset in DRAWN + FETCHED
    return [f"<results>/data/{wildcards.dataset}/{name}" for name in ("images.tar", "dataset.json")] if kept else []


def features_of_run(wildcards):
    """The manifest of what the run reads; an online run reads pixels."""
    run = CONFIG.run(wildcards.run)
    stored = CONFIG.training_of(run).inputs == "stored"
    return [f"<results>/features/{wildcards.dataset}/{run.backbone}.json"] if stored else []


def features_option(wildcards, input):
    return f"--features {shlex.quote(input.features[0])}" if input.features else ""


def excluded_of_run(wildcards):
    """The captions that the run must not train on, where its dataset leaves some out."""
    leaks = CONFIG.datasets[wildcards.dataset].exclude
    return [f"<results>/data/{wildcards.dataset}/excluded.seed{wildcards.seed}.csv"] if leaks else []


def excluded_option(wildcards, input):
    return f"--excluded {shlex.quote(input.excluded[0])}" if input.excluded else ""


def folders_option(wildcards, input):
    """The folders of all datasets."""
    return " ".join(f"--folder {shlex.quote(str(Path(file).parent))}" for file in input.images)


def metrics_of_rows(wildcards):
    return [
        f"<results>/metrics/{dataset}/{run.name}/seed{seed}.json"
        for run, dataset in table_rows(wildcards)
        for seed in CONFIG.seeds
    ]


def metrics_of_table(wildcards):
    """Of every run and seed; Table 3 needs none."""
    return metrics_of_rows(wildcards) if wildcards.number != "3" else []


def efficiency_of_table(wildcards):
    """Profiles of Table 3's runs, one a backbone; other tables need none."""
    wanted = table_of(wildcards).number == 3
    return [f"<results>/efficiency/{name}.json" for name in CONFIG.backbones if wanted and profiled_runs(name)]


def metrics_options(wildcards, input):
    return " ".join(f"--metrics {shlex.quote(file)}" for file in input.metrics)


def efficiency_options(wildcards, input):
    return " ".join(f"--efficiency {shlex.quote(file)}" for file in input.efficiency)


def checkpoints_of_all(wildcards):
    return [
        f"<results>/checkpoints/{dataset}/{run.name}/seed{seed}.safetensors"
        for run in CONFIG.runs
        for dataset in run.datasets
        for seed in CONFIG.seeds
    ]


def checkpoints_options(wildcards, input):
    return " ".join(f"--checkpoint {shlex.quote(file)}" for file in input)


def processes_of_run(wildcards):
    return CONFIG.training_of(CONFIG.run(wildcards.run)).processes


def cmer_of_training(wildcards):
    """The command line, started once for each process of the training."""
    processes = processes_of_run(wildcards)
    return f"torchrun --standalone --nproc-per-node {processes} -m cmer" if processes > 1 else "cmer"
