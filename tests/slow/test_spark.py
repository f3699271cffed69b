"""A registered version on Spark: the lines of the documents, run where DSPyUI is not installed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dspyui.adapters.dspy_engine.engine import DspyEngine
from dspyui.bootstrap import make_app
from dspyui.domain.lms import LMRoles
from dspyui.domain.optimizers import OptimizerSpec
from dspyui.services.examples import example_spec
from dspyui.settings import Settings
from tests.elsewhere import python_elsewhere
from tests.fake_openai import FakeOpenAI, chat, last_input
from tests.mlflow_world import ROW, RunMaker, compiled

pytestmark = pytest.mark.slow
DOCS = Path(__file__).parents[2] / "docs"
# Where `bash test.sh --all` puts pyspark.
SPARK = Path(sys.prefix) / "spark"
KEYS = {"Bearer sk-spark"}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    assert (SPARK / "pyspark").is_dir(), "there is no pyspark; `bash test.sh --all` installs it"
    return python_elsewhere(tmp_path_factory.mktemp("elsewhere") / "venv", SPARK)


@pytest.fixture
def run(tmp_path, elsewhere, mlflow_address):
    """Run lines as a file in a folder of its own, on one core of this machine; gives the folder."""

    def run(lines, lm):
        folder = tmp_path / "spark"
        folder.mkdir()
        (folder / "use.py").write_text(lines, encoding="utf-8")
        told = {
            "spark.master": "local[1]",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
            # The executors' own environment says otherwise: what the lines take along counts.
            "spark.executorEnv.DSPYUI_LM_API_BASE": "http://127.0.0.1:9/v1",
            "spark.executorEnv.DSPYUI_LM_API_KEY": "sk-other",
        }
        conf = "".join(f"{name} {value}\n" for name, value in told.items())
        (folder / "spark-defaults.conf").write_text(conf, encoding="utf-8")
        environment = {
            **os.environ,
            "PATH": f"{elsewhere}{os.pathsep}{os.environ['PATH']}",
            "SPARK_CONF_DIR": str(folder),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "MLFLOW_TRACKING_URI": mlflow_address,
            "DSPYUI_LM_API_BASE": lm.base_url,
            "DSPYUI_LM_API_KEY": "sk-spark",
        }
        done = subprocess.run(
            ["python", "use.py"], env=environment, cwd=folder,
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-5000:]
        return folder

    return run


@pytest.fixture
def register(tmp_path, environ, mlflow_address):
    """Register a program in Production, through the services of the whole program."""
    environment = {**environ, "MLFLOW_TRACKING_URI": mlflow_address, "DSPYUI_LOCAL_LM": "false"}
    app = make_app(Settings.load(tmp_path / "no.env", environment, home=tmp_path / "data"))
    services = app.services
    services.tracking.start()
    services.tracking.wait(60)

    def register(name, program, row):
        run_id = RunMaker(services.runs, tmp_path)(program, row=row)
        # The gate asks for the name when the version in Production was never tested.
        services.register.register_run(
            run_id, name=name, who="李雷", stage="Production", why="w", confirm=name
        )

    yield register
    app.close()


def answers(folder):
    """The rows that the lines wrote into `answers`."""
    parts = sorted((folder / "answers").glob("part-*.json"))
    return [json.loads(line) for part in parts for line in part.read_text(encoding="utf-8").splitlines()]


def asked(lm, name):
    return sorted(last_input(request["messages"], name) for request in lm.requests)


def triage(ticket):
    """Another answer for every ticket."""
    return {"team": "billing" if len(ticket) % 2 else "shipping", "urgency": len(ticket) % 3 + 1}


@pytest.mark.parametrize("document", ["versions.md", "versions_zh.md"])
def test_the_lines_of_the_documents_answer_every_row_once(tmp_path, run, register, document):
    (lines,) = re.findall(r"```python\n(.*?)```", (DOCS / document).read_text(encoding="utf-8"), re.DOTALL)
    tickets = re.findall(r'\("([^"]+)",\)', lines)
    assert len(tickets) == 2
    spec = example_spec("tickets")
    engine = DspyEngine(LMRoles(task=spec.lms.task), environment={}, cache_folder=tmp_path / "cache")
    program = engine.dump(engine.build(spec.program), spec.program, OptimizerSpec(kind="none"), spec.lms.task)
    register("ticket-triage", program, {"ticket": "My parcel is late."})
    with FakeOpenAI(lambda sent: chat(reasoning="So.", **triage(last_input(sent, "ticket")))) as lm:
        folder = run(lines, lm)
        assert answers(folder) == [{"ticket": ticket, **triage(ticket)} for ticket in tickets]
        assert asked(lm, "ticket") == sorted(tickets)
    assert set(lm.keys) == KEYS


EVERY_TYPE = """
import os
import mlflow
from pyspark.sql import SparkSession
from pyspark.sql.functions import struct

spark = SparkSession.builder.getOrCreate()
told = ("DSPYUI_LM_API_BASE", "DSPYUI_LM_API_KEY")
extra = {name: os.environ[name] for name in told}
rows = [(f"lamp{n} 灯", n, ["x", "y"][:n], float(n)) for n in range(5)]
frame = spark.createDataFrame(rows, "message string, count long, tags array<string>, weight double")
whole = mlflow.pyfunc.spark_udf(spark, "models:/spark-types@production", env_manager="local", extra_env=extra)
some = mlflow.pyfunc.spark_udf(
    spark, "models:/spark-types@production", env_manager="local", extra_env=extra,
    result_type="words array<string>, product string, kind string, price double, urgent boolean, count2 long",
)
inputs = frame.filter("count < 3")
named = inputs.withColumn("answer", some(struct("weight", "tags", "count", "message")))
named.select("message", "weight", "answer.*").coalesce(1).write.json("answers")
frame.filter("count >= 3").withColumn("answer", whole()).select("message", "answer.*").coalesce(1).write.json(
    "answers", mode="append"
)
"""


def every_type(message):
    number = int(message[4])
    return {
        "product": message, "price": number / 2, "urgent": number % 2 == 0, "kind": ("问题", "praise")[number % 2],
        "words": message.split(), "count2": number,
    }  # fmt: skip


def test_every_type_of_field_with_and_without_a_result_type(run, register):
    outputs = [
        {"name": "product"}, {"name": "price", "type": "float"}, {"name": "urgent", "type": "bool"},
        {"name": "kind", "type": "choice", "choices": ["问题", "praise"]}, {"name": "words", "type": "list[str]"},
        {"name": "count2", "type": "int"},
    ]  # fmt: skip
    program = compiled(outputs=outputs)
    register("spark-types", program, ROW)

    def reply(messages):
        said = every_type(last_input(messages, "message"))
        return chat(**{**said, "words": json.dumps(said["words"], ensure_ascii=False)})

    with FakeOpenAI(reply) as lm:
        found = answers(run(EVERY_TYPE, lm))
        messages = [f"lamp{number} 灯" for number in range(5)]
        assert asked(lm, "message") == messages
    wanted = [{"message": message, **every_type(message)} for message in messages]
    for number in range(3):
        wanted[number]["weight"] = float(number)
    assert sorted(found, key=lambda row: row["message"]) == wanted
    tags = sorted(last_input(request["messages"], "tags") for request in lm.requests)
    assert len(set(tags)) == 3, "none, one and two"
