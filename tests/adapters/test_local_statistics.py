"""What SQLite is told of MLflow's tables: with it a join is looked up, without it everything is looked through."""

import sqlite3

import pytest

from dspyui.adapters.local_stack.mlflow_server import prepare_folders
from dspyui.adapters.local_stack.statistics import gather_statistics

JOIN = """EXPLAIN QUERY PLAN SELECT DISTINCT runs.id, found.value FROM runs
LEFT OUTER JOIN (SELECT * FROM metrics WHERE metrics.name = 'score') AS found ON runs.id = found.run
ORDER BY found.value DESC LIMIT 50"""


@pytest.fixture
def database(tmp_path):
    """Two tables as MLflow's are, with 2,000 Runs of ten metrics."""
    path = tmp_path / "mlflow.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE runs (id TEXT PRIMARY KEY)")
    connection.execute("CREATE TABLE metrics (name TEXT, value REAL, run TEXT, PRIMARY KEY (name, run))")
    connection.execute("CREATE INDEX by_run ON metrics (run)")
    runs = [f"{n:032x}" for n in range(2_000)]
    connection.executemany("INSERT INTO runs VALUES (?)", [(run,) for run in runs])
    values = [(f"m{m}" if m else "score", n / 7, run) for n, run in enumerate(runs) for m in range(10)]
    connection.executemany("INSERT INTO metrics VALUES (?, ?, ?)", values)
    connection.commit()
    connection.close()
    return path


def plan(database):
    connection = sqlite3.connect(database)
    steps = [row[3] for row in connection.execute(JOIN)]
    connection.close()
    return steps


def test_a_sorted_list_looks_its_figures_up(database):
    assert any(step.startswith("SCAN found") for step in plan(database))
    assert gather_statistics(database)
    steps = plan(database)
    assert not any(step.startswith("SCAN found") for step in steps), steps
    assert any(step.startswith("SEARCH") for step in steps)


def test_a_database_that_somebody_writes_to_is_left_alone(database, monkeypatch):
    monkeypatch.setattr("dspyui.adapters.local_stack.statistics.BUSY_SECONDS", 0.05)
    writer = sqlite3.connect(database, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    try:
        assert not gather_statistics(database)
    finally:
        writer.execute("ROLLBACK")
        writer.close()
    assert gather_statistics(database)


def test_what_is_no_database_is_left_alone(tmp_path):
    assert not gather_statistics(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
    file = tmp_path / "text.db"
    file.write_text("no database at all " * 100)
    assert not gather_statistics(file)
    assert file.read_text().startswith("no database")


def test_they_are_gathered_before_the_local_server_starts(database, settings):
    asked = settings.model_copy(
        update={
            "mlflow_backend_store_uri": f"sqlite:///{database}",
            "mlflow_artifact_root": str(database.parent / "a"),
        }
    )
    prepare_folders(asked)
    assert not any(step.startswith("SCAN found") for step in plan(database))
