# What a step takes of a machine: threads, GPUs, `mem_mb` and `runtime` (minutes). No result depends on the last two,
# which a cluster asks for: at least twice what two slow CPU cores took on RSICD, and as much again at every retry; for
# open_clip's towers on a GPU they are guesses.
import math

from cmer.config import UNTRAINED


# The limit on `gpu` in profiles/default is one machine's. A cluster, whose profile says so, counts its own, and its job
# has on the node what it asked for.
if workflow.resource_scopes.is_local("gpu") or not workflow.is_main_process:
    workflow.global_resources["gpu"] = None


# What no job may take is said at once, not when its turn comes, which may be hours later.
onstart:
    for job in workflow.dag.needrun_jobs():
        job.rule.expand_resources(job.wildcards, job.input, job.attempt)


ROW = 110  # bytes of images.csv; counting its rows would read it for every job
UNSEEN = 10  # thousand images are assumed of a dataset that is not prepared yet


def thousands(dataset):
    """Images of a dataset, in thousands."""
    described = Path(CONFIG.results, "data", dataset, "images.csv")
    return described.stat().st_size / ROW / 1000 if described.is_file() else UNSEEN


def thousands_read(wildcards):
    """Of the dataset of a step; of all, for a step that compares them."""
    names = [wildcards.dataset] if wildcards.get("dataset") else USED
    return sum(map(thousands, names))


def amount(base, each=0):
    """A resource: `base`, and `each` for every thousand images; twice that at the second attempt, and so on."""

    def taken(wildcards, attempt):
        return math.ceil(base + (each and each * thousands_read(wildcards))) * attempt

    return taken


def backbone_of(wildcards):
    return CONFIG.backbones[wildcards.get("backbone") or CONFIG.run(wildcards.run).backbone]


def gpus(wildcards):
    """open_clip's towers have a GPU to themselves; the small ones share what there is."""
    return int(backbone_of(wildcards).kind == "open_clip")


def memory_of_towers(wildcards, attempt):
    """For steps that load a backbone: ViT-H-14 has 4 GB of weights, there twice while they are read."""
    return amount(16000 if gpus(wildcards) else 6000, each=200)(wildcards, attempt)


def trains(wildcards):
    """Whether the run's method has anything to train; one that has not writes an empty checkpoint."""
    return CONFIG.run(wildcards.run).method not in UNTRAINED


def minutes_of_training(wildcards, attempt):
    """By the images or pairs that are shown. A CPU that computes the towers' outputs at every step is slow."""
    training = CONFIG.training_of(CONFIG.run(wildcards.run))
    images = min(thousands(wildcards.dataset), (training.train_images or math.inf) / 1000)
    shown = training.epochs * images * (5 if training.epoch_of == "pairs" else 1)
    pace = 2 if training.inputs == "online" and not gpus(wildcards) else 0.3
    return math.ceil(15 + pace * shown * trains(wildcards)) * attempt


def memory_of_training(wildcards, attempt):
    """Each process loads the towers."""
    return memory_of_towers(wildcards, attempt) * processes_of_run(wildcards)


def threads_of_backbone(wildcards):
    return CONFIG.backbones[wildcards.backbone].threads


def threads_of_run(wildcards):
    """Of the spec, like the backbone's, never of the machine: on a CPU they are part of the result."""
    return CONFIG.training_of(CONFIG.run(wildcards.run)).threads


def threads_of_profile(wildcards):
    """All of a machine that runs jobs beside each other: what is timed is timed alone. A cluster's job is alone."""
    return workflow.resource_settings.cores if workflow.local_exec else CONFIG.profile.threads


def threads_of_training(wildcards):
    return threads_of_run(wildcards) * processes_of_run(wildcards)


def gpus_of_training(wildcards):
    """One for each process. Snakemake would lower what is over its limit without a word."""
    taken = gpus(wildcards) * processes_of_run(wildcards) * trains(wildcards)
    limit = workflow.global_resources.get("gpu").value
    if limit is not None and taken > limit:
        raise UserError(
            f"run {wildcards.run} trains in {taken} processes, each on a GPU of its own, and the limit is {limit}:"
            f" add --resources gpu={taken}"
        )
    return taken
