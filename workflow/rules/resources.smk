# Memory (`mem_mb`) and time limit (`runtime`, minutes) of jobs, for clusters. No result depends on them. They are at
# least twice what two slow CPU cores needed on RSICD, and grow with every retry. For open_clip's towers on a GPU they
# are guesses.
import math


def amount(base, each=0):
    """`base` (a number or a function of the wildcards) plus `each` per thousand images, times the attempt. A step without
    a dataset counts all datasets in use."""

    def of_job(wildcards, attempt):
        datasets = [wildcards.dataset] if wildcards.get("dataset") else PLAN.used
        fixed = base(wildcards) if callable(base) else base
        return math.ceil(fixed + (each and each * RESOURCES.thousands(datasets))) * attempt

    return of_job


def training_memory(wildcards, attempt):
    """Each process loads the towers."""
    return amount(planned(RESOURCES.memory), each=200)(wildcards, attempt) * RESOURCES.processes(wildcards.run)


def training_threads(wildcards):
    return RESOURCES.threads(wildcards.run) * RESOURCES.processes(wildcards.run)


def uses_gpu(gpus):
    """1 for a job that uses GPUs, else 0: the resource `gpu_jobs`, whose limit is the number of such jobs at a time."""

    def of_wildcards(wildcards):
        return min(1, planned(gpus)(wildcards))

    return of_wildcards
