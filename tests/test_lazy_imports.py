"""What a statement must not import: commands that need no torch start in a tenth of the time."""

import json
import subprocess
import sys

WITHOUT = {
    "from daso.compose import Recipe\n"
    "recipe = Recipe.parse('remixmatch+crest-plus+daso')\n"
    "assert 'dist_temperature' in recipe.hyperparameters()\n"
    "assert recipe.method.unlabeled_views == ('weak', 'strong', 'strong')": "torch numpy tyro",
    "import daso": "torch numpy PIL rich",
    "import daso.data.open": "torch pyarrow sklearn",
    "import daso.evaluate.metrics, daso.evaluate.summary": "torch sklearn tyro",
    "import daso.report.runs": "torch sklearn tyro",
    "import daso.report.figures, daso.report.html": "torch matplotlib",
    "import daso.report.figures.draw": "torch sklearn tyro matplotlib.pyplot",
    "import daso.cli.training.session": "matplotlib scipy pandas sklearn pyarrow",
    "from daso.cli import main; assert main(['--help']) == 0": "torch numpy tyro rich matplotlib",
    "from daso.cli import main; assert main(['methods']) == 0": "torch numpy",
    "from daso.cli import main; assert main(['methods', 'fixmatch+daso']) == 0": "torch numpy",
}
"""Statements, and the modules that have no place in a process that has run one."""
EACH = """
import contextlib, io, json, os, sys
for statement, modules in json.loads(sys.argv[1]).items():
    if child := os.fork():
        os.waitpid(child, 0)
        continue
    with contextlib.redirect_stdout(io.StringIO()):
        exec(statement)
    print(json.dumps([statement, sorted({*modules.split()} & {*sys.modules})]), flush=True)
    os._exit(0)
"""


def test_what_is_not_needed_is_not_imported() -> None:
    process = subprocess.run(
        [sys.executable, "-c", EACH, json.dumps(WITHOUT)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = [json.loads(line) for line in process.stdout.splitlines()]
    assert found == [[statement, []] for statement in WITHOUT], process.stderr
