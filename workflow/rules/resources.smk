# What a step takes of a machine: `mem_mb` and `runtime` (minutes), which a cluster asks for. No result depends on them:
# at least twice what two slow CPU cores took on RSICD, and as much again at every retry. For open_clip's towers on a
# GPU they are guesses.
import math


def amount(base, each=0):
    """`base`, a number or a function of the wildcards, and `each` for every thousand images; twice that at the second
    attempt, and so on. A step without a dataset compares all that are used."""

    def of_job(wildcards, attempt):
        datasets = [wildcards.dataset] if wildcards.get("dataset") else PLAN.used
        fixed = base(wildcards) if callable(base) else base
        return math.ceil(fixed + (each and each * PLAN.thousands(datasets))) * attempt

    return of_job


def training_memory(wildcards, attempt):
    """Each process loads the towers."""
    return amount(planned(PLAN.memory), each=200)(wildcards, attempt) * PLAN.processes(wildcards.run)


def training_threads(wildcards):
    return PLAN.threads(wildcards.run) * PLAN.processes(wildcards.run)


def uses_gpu(gpus):
    """1 for a job that uses GPUs, however many: the resource whose limit says how many such jobs run at once."""

    def of_wildcards(wildcards):
        return min(1, planned(gpus)(wildcards))

    return of_wildcards
