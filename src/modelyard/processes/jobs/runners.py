"""The code of each kind of job, by the kind's name; imported in the job's own process, when it is asked for."""

from typing import Final

from modelyard.foundation.registry import Registry
from modelyard.ports.job_runner import JobRunner

JOB_RUNNERS: Final = Registry[JobRunner](
    group="modelyard.job_runners",
    builtin={
        "batch-inference": "modelyard.processes.jobs.batch_inference:BatchInference",
        "compress": "modelyard.integrations.compressors.compress:Compress",
        "measure": "modelyard.processes.jobs.optimising.measure:Measure",
        "optimise": "modelyard.processes.jobs.optimising.optimise:Optimise",
        "distil": "modelyard.integrations.distilling.distil:Distil",
        "fine-tune": "modelyard.integrations.networks.fine_tune:FineTune",
        "train": "modelyard.integrations.training.train:Train",
        "tune": "modelyard.integrations.tuning.tune:Tune",
    },
)
