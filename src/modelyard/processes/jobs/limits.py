"""Bounds that a job met, in words: the worker tells them, and the job's own process where it meets one first."""

from modelyard.domain.errors.platform import JobLimitReached


def too_much_memory(most: int) -> JobLimitReached:
    """It took more memory than it may."""
    return JobLimitReached(
        f"it needs more than the {most >> 20} MiB of memory that a job may have",
        hint="give it less at a time, or raise jobs.memory_mib",
    )


def too_much_disk(most: int) -> JobLimitReached:
    """It wrote more than it may."""
    return JobLimitReached(
        f"it wrote more than the {most >> 20} MiB that a job may have on the disk",
        hint="let it write less, or raise jobs.disk_mib",
    )


def too_late(seconds: float) -> JobLimitReached:
    """It took longer than it may."""
    return JobLimitReached(f"it was not done after {seconds:g} seconds", hint="give it less to do, or a higher limit_s")
