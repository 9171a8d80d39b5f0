"""What daso and submitit need of Slurm, on this machine: python slurm_stub.py sbatch|srun|sacct ARGUMENTS..."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path


def sbatch(script: Path) -> None:
    """Run every task of an array, one after the other, and say the job's number."""
    text = script.read_text()
    place = Path(os.environ["SLURM_STUB"])
    (place / "script").write_text(text)
    array = re.search(r"^#SBATCH --array=0-(\d+)%", text, re.MULTILINE)
    for task in range(int(array[1]) + 1 if array else 1):
        own = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
        if array:
            own |= {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(task)}
        with (place / f"{task}.log").open("w") as log:
            subprocess.Popen(["bash", str(script)], env=os.environ | own, stdout=log, stderr=log)
    print("Submitted batch job 7")


def srun(arguments: list[str]) -> None:
    """Become the command that follows the options."""
    start = next(n for n, word in enumerate(arguments) if "python" in Path(word).name)
    os.execvp(arguments[start], arguments[start:])


if __name__ == "__main__":
    program, *rest = sys.argv[1:]
    if program == "sbatch":
        sbatch(Path(rest[0]))
    elif program == "srun":
        srun(rest)
    else:
        print("JobID|State|NodeList\n7_0|RUNNING|here\n7_1|RUNNING|here")
