# What a step reads (`spec`), what it executes (`code`), and what it takes. Snakemake plans a step again when one of
# its params changes; it cannot see imported packages, hence the digests. Nothing here imports torch.
import json
import shlex

from cmer.files import code_digest
from cmer.training import MODULES

# `cmer` of the environment that runs Snakemake, whether or not that environment is activated.
shell.prefix(f'export PATH="{sys.prefix}/bin:$PATH"; set -euo pipefail; ')


def as_json(data):
    return json.dumps(data, sort_keys=True, ensure_ascii=False)


# --- specs: JSON of exactly what a step reads. Printed names and prompts are the tables' and the captions' alone. ----


def data_settings(dataset):
    return CONFIG.datasets[dataset].model_dump(exclude={"template"}) | {"title": dataset}


def backbone_settings(backbone):
    return CONFIG.backbones[backbone].model_dump() | {"printed": backbone}


def data_spec(wildcards):
    return as_json(data_settings(wildcards.dataset))


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


def table_of(wildcards):
    return next(table for table in CONFIG.tables if table.number == int(wildcards.number))


def table_rows(wildcards):
    """Pairs of a run and a dataset: the measured rows of a table, in the config's order."""
    table = table_of(wildcards)
    runs = [CONFIG.run(name) for name in table.runs]
    return [(run, dataset) for dataset in table.datasets for run in runs if dataset in run.datasets]


def table_spec(wildcards):
    rows = [
        {
            "name": run.name,
            "dataset": dataset,
            "dataset_title": CONFIG.datasets[dataset].title,
            "backbone_printed": CONFIG.backbones[run.backbone].printed,
            "method": run.method,
            "options": run.options.model_dump(),
        }
        for run, dataset in table_rows(wildcards)
    ]
    table = table_of(wildcards)
    return as_json({"number": table.number, "runs": rows, "protocols": table.protocols, "seeds": CONFIG.seeds})


# --- code: digests of the sources that a step executes --------------------------------------------------------------


def extraction_code(wildcards):
    kind = CONFIG.backbones[wildcards.backbone].kind
    return code_digest("cmer.features.extract", f"cmer.backbones.{kind}")


def run_code(wildcards, *modules):
    run = CONFIG.run(wildcards.run)
    kind = CONFIG.backbones[run.backbone].kind
    return code_digest(f"cmer.methods.{run.method}", f"cmer.backbones.{kind}", *modules)


def training_code(wildcards):
    return run_code(wildcards, *MODULES)


def embedding_code(wildcards):
    return run_code(wildcards, "cmer.retrieval.embed", "cmer.training.assemble", "cmer.training.checkpoint")


# --- inputs and resources -------------------------------------------------------------------------------------------


def drawn(wildcards):
    """The demo's own files. A published dataset stays where it is: its path differs from machine to machine."""
    demo = CONFIG.datasets[wildcards.dataset].source == "demo"
    return [f"<results>/data/{wildcards.dataset}/{name}" for name in ("images.tar", "dataset.json")] if demo else []


def features_of_run(wildcards):
    """The manifest of what the run reads; an online run reads pixels."""
    run = CONFIG.run(wildcards.run)
    stored = CONFIG.training_of(run).inputs == "stored"
    return [f"<results>/features/{wildcards.dataset}/{run.backbone}.json"] if stored else []


def features_option(wildcards, input):
    return f"--features {shlex.quote(input.features[0])}" if input.features else ""


def metrics_of_table(wildcards):
    return [
        f"<results>/metrics/{dataset}/{run.name}/seed{seed}.json"
        for run, dataset in table_rows(wildcards)
        for seed in CONFIG.seeds
    ]


def metrics_options(wildcards, input):
    return " ".join(f"--metrics {shlex.quote(file)}" for file in input)


def threads_of_backbone(wildcards):
    return CONFIG.backbones[wildcards.backbone].threads


def threads_of_run(wildcards):
    """Of the spec, like the backbone's, never of the machine: on a CPU they are part of the result."""
    return CONFIG.training_of(CONFIG.run(wildcards.run)).threads


def gpus(wildcards):
    """open_clip's towers have a GPU to themselves; the small ones share what there is."""
    name = wildcards.get("backbone") or CONFIG.run(wildcards.run).backbone
    return int(CONFIG.backbones[name].kind == "open_clip")
