"""`dspyui compile` and `dspyui register` as real processes: answers, exit codes, Ctrl-C."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tests.fake_openai import FakeOpenAI, Fault, chat, last_input
from tests.waiting import wait_ended, wait_until

pytestmark = pytest.mark.slow

ROWS = [{"message": f"My thing{i}q broke.", "product": f"thing{i}q"} for i in range(20)]
KEYS = {
    "job_id", "run_id", "run_url", "record", "status", "baseline_score", "evaluation_score", "score_improvement",
    "score_improvement_ci_low", "score_improvement_ci_high", "verdict", "pairs", "differing", "repeats", "failed",
    "score_errors", "by_field", "unreadable", "uncounted", "warnings", "program_path", "duration_seconds",
    "lm_calls", "lm_cache_hits", "input_tokens", "output_tokens", "total_tokens", "embedding_calls",
    "embedding_tokens", "cost",
}  # fmt: skip


def knowing(messages):
    word = last_input(messages, "message").split()[1]
    return chat(product=word if len(messages) > 2 else "something")


@pytest.fixture
def lm():
    with FakeOpenAI(knowing) as fake:
        yield fake


@pytest.fixture
def start(tmp_path, lm):
    """Start a command in a folder that holds `specs/spec.yaml`, whose data lies beside it."""
    folder = tmp_path / "specs"
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    document = {
        "program": {
            "name": "terminal",
            "signature": {"inputs": [{"name": "message"}], "outputs": [{"name": "product"}]},
        },
        "lms": {"task": {"model": "openai/fake", "api_base": lm.base_url, "num_retries": 0}},
        "optimizer": {"kind": "labeled_few_shot"},
        "data": {"path": "rows.jsonl"},
        "threads": 2,
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(document))

    def start(*arguments, stderr=subprocess.PIPE, **settings):
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "DSPYUI_HOME": str(tmp_path / "data"),
            "MLFLOW_ENABLED": "false",
            **settings,
        }
        return subprocess.Popen(
            [sys.executable, "-m", "dspyui", *arguments],
            env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=stderr, text=True,
        )  # fmt: skip

    return start


def ended(process, seconds=120):
    """Exit code, stdout, stderr."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def test_the_answer_for_programs(start):
    code, out, err = ended(start("compile", "specs/spec.yaml", "--json"))
    assert code == 0, err
    (line,) = out.splitlines()
    answer = json.loads(line)
    assert set(answer) == KEYS
    assert (answer["status"], answer["record"], answer["run_id"]) == ("done", "off", None)
    assert answer["by_field"] == {"product": {"baseline_score": 0.0, "evaluation_score": 1.0}}
    assert (answer["unreadable"], answer["uncounted"]) == (0, 0)
    assert [warning["code"] for warning in answer["warnings"]] == ["data_notice.test_small"]
    assert (answer["baseline_score"], answer["evaluation_score"], answer["score_improvement"]) == (
        0.0,
        1.0,
        1.0,
    )
    assert answer["lm_calls"] > 0
    assert answer["total_tokens"] == answer["input_tokens"] + answer["output_tokens"] > 0
    assert json.loads(Path(answer["program_path"]).read_text())["spec"]["name"] == "terminal"
    assert err.splitlines()[-1] == "Done"
    assert "\x1b" not in err


def test_the_answer_for_people_in_chinese(start):
    code, out, err = ended(start("compile", "specs/spec.yaml", "--lang", "zh_CN"))
    assert code == 0, err
    scores, interval, _took, job, program = out.splitlines()
    assert scores == "测试集得分：编译前 0.00，编译后 1.00（+1.00）"
    assert interval.startswith("差值：95% 置信区间 +0.")
    assert interval.endswith("至 +1.00，共 6 行：提升")
    assert job.startswith("任务：")
    assert program.startswith("程序：")


def test_a_failed_compile_is_1_and_says_why(start, lm):
    lm.reply = lambda _messages: Fault(401, "no such key")
    code, out, err = ended(start("compile", "specs/spec.yaml", "--json"))
    answer = json.loads(out.splitlines()[-1])
    assert (code, answer["status"], answer["error"]["code"]) == (1, "failed", "engine.key_needed")
    assert answer["job_id"]
    assert f"error: {answer['error']['message']}" in err


def test_fields_unreadable_replies_and_small_data_are_told(start, lm, tmp_path):
    folder = tmp_path / "specs"
    rows = [{**row, "size": "big"} for row in ROWS[:14]]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    document = yaml.safe_load((folder / "spec.yaml").read_text())
    document["program"]["signature"]["outputs"].append({"name": "size"})
    (folder / "spec.yaml").write_text(yaml.safe_dump(document))

    def reply(messages):
        word = last_input(messages, "message").split()[1]
        if int(word.strip("thingq")) % 2:
            return "no answer"
        return chat(product=word if len(messages) > 2 else "x", size="big")

    lm.reply = reply
    code, out, err = ended(start("compile", "specs/spec.yaml", "--json", "--lang", "zh_CN"))
    assert code == 0, err
    answer = json.loads(out.splitlines()[-1])
    fields = answer["by_field"]
    assert set(fields) == {"product", "size"}
    assert fields["product"]["baseline_score"] == 0.0
    assert 0 < fields["size"]["baseline_score"] == fields["size"]["evaluation_score"] < 1
    assert answer["unreadable"] > 0
    told = {warning["code"]: warning["message"] for warning in answer["warnings"]}
    assert "LabeledFewShot 最好有 8 行以上的训练数据，而划分后只有 7 行。" in told["optimizer_warning.train"]
    assert all(message in err for message in told.values())


def test_a_job_runs_again_with_the_rows_it_had(start, tmp_path):
    code, out, err = ended(start("compile", "specs/spec.yaml", "--json"))
    assert code == 0, err
    first = json.loads(out.splitlines()[-1])
    (tmp_path / "specs" / "rows.jsonl").unlink()
    code, out, err = ended(start("jobs", "again", first["job_id"], "--json"))
    assert code == 0, err
    again = json.loads(out.splitlines()[-1])
    assert set(again) == KEYS
    assert again["job_id"] != first["job_id"]
    assert (again["baseline_score"], again["evaluation_score"]) == (0.0, 1.0)


def test_a_job_is_cancelled_from_another_process(start, lm, tmp_path):
    lm.hold(after=0)
    process = start("compile", "specs/spec.yaml", "--json")
    wait_until(lambda: lm.requests, seconds=60)
    (folder,) = (tmp_path / "data/jobs").iterdir()
    code, out, err = ended(start("jobs", "cancel", folder.name, "--json"))
    assert (code, json.loads(out)["job"]["status"]) == (0, "cancelled"), err
    code, out, err = ended(process, 60)
    assert (code, json.loads(out.splitlines()[-1])["status"]) == (130, "cancelled"), err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_is_130_and_leaves_no_child(start, lm, tmp_path, number):
    lm.hold(after=0)
    process = start("compile", "specs/spec.yaml", "--json")
    wait_until(lambda: lm.requests, seconds=60)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(number)
    code, out, err = ended(process, 60)
    answer = json.loads(out.splitlines()[-1])
    assert (code, answer["status"], answer["error"]["code"]) == (130, "cancelled", "follow.cancelled"), err
    wait_ended(children)
    job = json.loads((tmp_path / "data/jobs" / answer["job_id"] / "job.json").read_text())
    assert job["status"] == "cancelled"


def test_a_server_that_is_away_costs_no_result(start):
    process = start(
        "compile",
        "specs/spec.yaml",
        "--json",
        MLFLOW_ENABLED="true",
        MLFLOW_TRACKING_URI="http://127.0.0.1:9",
    )
    code, out, err = ended(process)
    answer = json.loads(out.splitlines()[-1])
    assert (code, answer["status"], answer["record"], answer["run_id"]) == (0, "done", "pending", None), err
    assert "Its record waits in the data folder" in err


def test_register_a_run_and_a_job(start, mlflow_address):
    settings = {"MLFLOW_ENABLED": "true", "MLFLOW_TRACKING_URI": mlflow_address}
    code, out, err = ended(start("compile", "specs/spec.yaml", "--json", **settings))
    assert code == 0, err
    compiled = json.loads(out.splitlines()[-1])
    assert compiled["record"] == "sent"
    asked = ["--name", "终端 terminal", "--description", "d", "--stage", "staging", "--why", "w", "--json"]
    code, out, err = ended(start("register", "--run", compiled["run_id"], *asked, **settings))
    assert code == 0, err
    version = json.loads(out.splitlines()[-1])
    assert set(version) == {"name", "version", "stage", "model_uri", "url", "run_id"}
    assert (version["name"], version["version"], version["stage"]) == ("终端 terminal", 1, "Staging")
    assert version["model_uri"] == "models:/终端 terminal/1"
    code, out, err = ended(start("register", "--job", compiled["job_id"], "--name", "other", **settings))
    assert code == 0, err
    assert out.splitlines()[0] == "other version 1, stage None: models:/other/1"
    unknown = ended(start("register", "--run", "0" * 32, "--name", "x", "--json", **settings))
    assert unknown[0] == 2


def test_a_run_of_another_machine_compiles_again_here(start, mlflow_address, tmp_path, lm):
    """The Run's data file and folder are gone, as on another machine: its rows come from MLflow, in the same splits."""
    from mlflow import MlflowClient

    settings = {
        "MLFLOW_ENABLED": "true",
        "MLFLOW_TRACKING_URI": mlflow_address,
        "MLFLOW_EXPERIMENT_NAME": f"again-{tmp_path.name}",
    }
    code, out, err = ended(start("compile", "specs/spec.yaml", "--json", **settings))
    assert code == 0, err
    first = json.loads(out.splitlines()[-1])
    (tmp_path / "specs" / "rows.jsonl").unlink()
    other = {**settings, "DSPYUI_HOME": str(tmp_path / "other machine")}

    code, out, err = ended(
        start("compile", "--from-run", first["run_id"], "--save-spec", "again.yaml", "--json", **other)
    )
    assert code == 0, err
    saved = yaml.safe_load((tmp_path / "again.yaml").read_text(encoding="utf-8"))
    assert json.loads(out.splitlines()[-1]) == {"spec_path": str(tmp_path / "again.yaml")}
    rows = [{name: row[name] for name in ("message", "product")} for row in saved["data"]["rows"]]
    assert sorted(map(str, rows)) == sorted(map(str, ROWS))

    code, out, err = ended(start("compile", "--from-run", first["run_id"], "--json", **other))
    assert code == 0, err
    assert "the same splits" in err
    second = json.loads(out.splitlines()[-1])
    assert second["run_id"] != first["run_id"]
    client = MlflowClient(mlflow_address, mlflow_address)
    one, two = (client.get_run(run_id) for run_id in (first["run_id"], second["run_id"]))
    digests = [
        {entry.tags[0].value: entry.dataset.digest for entry in run.inputs.dataset_inputs}
        for run in (one, two)
    ]
    assert digests[0] == digests[1]
    assert len(digests[0]) == 3
    # All but where the rows came from, and what said which split they are in.
    asked = [
        {name: value for name, value in run.data.params.items() if not name.startswith(("data.", "split."))}
        for run in (one, two)
    ]
    assert asked[0] == asked[1]
    assert two.data.metrics["evaluation_score"] == one.data.metrics["evaluation_score"] == 1.0
    # A Run that came from a Run is loaded like any other.
    code, out, err = ended(start("compile", "again.yaml", "--lang", "zh_CN", **other))
    assert code == 0, err


def test_a_run_that_cannot_be_compiled_again_says_why(start, mlflow_address):
    settings = {"MLFLOW_ENABLED": "true", "MLFLOW_TRACKING_URI": mlflow_address}
    code, out, _ = ended(start("compile", "--from-run", "0" * 32, "--json", **settings))
    assert (code, json.loads(out.splitlines()[-1])["error"]["code"]) == (2, "run.unknown")
    code, out, _ = ended(start("compile", "--from-run", "x", "--json", MLFLOW_TRACKING_URI="http://127.0.0.1:9",
                               MLFLOW_ENABLED="true"))  # fmt: skip
    assert (code, json.loads(out.splitlines()[-1])["error"]["code"]) == (1, "tracking.unreachable")


def test_a_spec_that_names_a_missing_file_costs_nothing(start, tmp_path):
    (tmp_path / "specs" / "rows.jsonl").unlink()
    code, out, _ = ended(start("compile", "specs/spec.yaml", "--json", "--lang", "zh_CN"))
    answer = json.loads(out.splitlines()[-1])
    assert (code, answer["error"]["code"]) == (2, "file.missing")
    assert "rows.jsonl" in answer["error"]["message"]
    assert not list((tmp_path / "data" / "jobs").glob("*"))


def test_a_terminal_gets_a_bar(start):
    ours, theirs = os.openpty()
    process = start("compile", "specs/spec.yaml", stderr=theirs, LC_ALL="C.UTF-8", TERM="xterm-256color")
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + 120
    while True:
        # A process that hangs must not hang the test.
        readable, _, _ = select.select([ours], [], [], max(0.0, deadline - time.monotonic()))
        assert readable, shown.decode(errors="replace")
        try:
            shown += os.read(ours, 65536)
        except OSError:  # Linux says so when the other end is closed
            break
    os.close(ours)
    assert ended(process, 60)[0] == 0
    assert "━".encode() in shown
    assert b"Done" in shown


def test_files_beside_the_spec_are_found_and_what_they_cannot_show_is_said(start, tmp_path):
    folder = tmp_path / "specs"
    test = [{"Message": f"My other{n}q broke.", "Product": f"other{n}q"} for n in range(4)]
    (folder / "test.json").write_text(json.dumps(test))
    main = "".join(f"{row['message']}\t{row['product']}\n" for row in ROWS)
    (folder / "main.tsv").write_text(f"Message\tProduct\n{main}")
    document = yaml.safe_load((folder / "spec.yaml").read_text())
    columns = {"message": "Message", "product": "Product"}
    document["data"] = {"path": "main.tsv", "columns": columns, "test": {"path": "test.json"}}
    (folder / "spec.yaml").write_text(yaml.safe_dump(document))
    process = start("compile", "specs/spec.yaml", "--json", MLFLOW_ENABLED="false")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["evaluation_score"] == 1.0
    assert "Test rows: 4. With fewer than 5" in err
