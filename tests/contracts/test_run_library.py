"""What every list of Runs does, the one in memory and MLflow's."""

import secrets
from datetime import timedelta

import pytest

from dspyui.adapters.mlflow_store.run_list import MlflowRunLibrary
from dspyui.domain.registry import RegisterRequest
from dspyui.domain.run_list import SORTS, RunQuery
from dspyui.domain.runs import ArtifactFile
from dspyui.errors import BadRequestError, NotFoundError
from tests.contracts.library import MemoryLibrary
from tests.mlflow_world import STARTED, compiled


@pytest.fixture
def library(kind, settings, tracking, runs, registry):
    return MemoryLibrary(runs, registry) if kind == "memory" else MlflowRunLibrary(settings, tracking)


@pytest.fixture
def word():
    """A word that only this test's Runs have in their name."""
    return f"w{secrets.token_hex(6)}"


@pytest.fixture
def five(make_run, word):
    """Five Runs, the second without any metric; each figure sorts them in another way."""
    made = []
    for index, (module, score, cost) in enumerate(
        (("Predict", 0.5, 3.0), ("Predict", None, None), ("ChainOfThought", 0.9, 1.0),
         ("Predict", 0.1, 2.0), ("ChainOfThought", 0.7, 0.0))
    ):  # fmt: skip
        metrics = {} if score is None else {
            "evaluation_score": score, "cost": cost, "baseline_score": 1 - score,
            "score_improvement": 2 * score - 1, "duration_seconds": cost + 1,
        }  # fmt: skip
        made.append(
            make_run(
                name=f"{word} 抽取 {index}",
                started_at=STARTED + timedelta(seconds=index),
                status="FAILED" if score is None else "FINISHED",
                metrics=metrics,
                params={"module": module, "optimizer": "GEPA", "lm.task.model": f"openai/Model-{index}"},
                tags={
                    "dspyui.program": f"Program {4 - index} 产品",
                    **({} if score is None else {"dspyui.kind": "batch" if index == 3 else "compile"}),
                },
            )
        )
    return made


def ids(library, **query):
    return [run.run_id for run in library.page(RunQuery(**query)).runs]


def test_the_newest_come_first_and_pages_follow_each_other(library, five, word):
    query = RunQuery(name=word, size=2)
    found, token = [], None
    for size in (2, 2, 1):
        page = library.page(query, token)
        assert len(page.runs) == size
        found += [run.run_id for run in page.runs]
        token = page.next_token
    assert token is None
    assert found == five[::-1]


def test_a_token_of_ones_own_making_is_refused(library, five, word):
    with pytest.raises(BadRequestError) as caught:
        library.page(RunQuery(name=word), "nonsense")
    assert caught.value.code == "run.page_token"


@pytest.mark.parametrize(
    ("query", "places"),
    [
        ({"state": "FAILED"}, [1]),
        ({"state": "RUNNING"}, []),
        ({"module": "ChainOfThought"}, [4, 2]),
        ({"kind": "batch"}, [3]),
        ({"kind": "compile"}, [4, 2, 0]),
        ({"optimizer": "GEPA"}, [4, 3, 2, 1, 0]),
        ({"optimizer": "COPRO"}, []),
        ({"lm": "model-3"}, [3]),
        ({"program": "PROGRAM 3"}, [1]),
        ({"program": " 产品 "}, [4, 3, 2, 1, 0]),
        ({"state": "FINISHED", "module": "Predict"}, [3, 0]),
        ({"sort": "score"}, [2, 4, 0, 3, 1]),
        ({"sort": "score", "descending": False}, [3, 0, 4, 2, 1]),
        ({"sort": "cost", "descending": False}, [4, 2, 3, 0, 1]),
        ({"sort": "baseline"}, [3, 0, 4, 2, 1]),
        ({"sort": "difference"}, [2, 4, 0, 3, 1]),
        ({"sort": "duration"}, [0, 3, 2, 4, 1]),
        ({"sort": "started", "descending": False}, [0, 1, 2, 3, 4]),
        ({"sort": "name", "descending": False}, [0, 1, 2, 3, 4]),
        ({"sort": "program", "descending": False}, [4, 3, 2, 1, 0]),
        ({"sort": "module", "descending": False}, [4, 2, 3, 1, 0]),
        ({"sort": "lm", "descending": False}, [0, 1, 2, 3, 4]),
    ],
)
def test_the_server_filters_and_sorts(library, five, word, query, places):
    assert ids(library, name=word, **query) == [five[place] for place in places]


def test_every_order_is_one_that_the_server_knows(library, five, word):
    for sort in SORTS:
        assert sorted(ids(library, name=word, sort=sort)) == sorted(five)


@pytest.mark.parametrize(
    "text",
    [
        "it's",
        'say "hi"',
        "a`b",
        "100%",
        "back\\slash",
        "x' OR 1=1 --",
        "'; DROP TABLE runs; --",
        "AND name = 'x'",
        "🚀",
    ],
)
def test_any_text_can_be_looked_for(library, make_run, word, text):
    wanted = make_run(name=f"{word} {text} end")
    make_run(name=f"{word} other")
    assert ids(library, name=f"{word} {text}") == [wanted]
    assert ids(library, name=word, program=text, lm=text) == []


def test_a_deleted_run_is_elsewhere_until_it_is_restored(library, five, word):
    library.delete(five[2])
    library.delete(five[2])
    assert library.get(five[2]).deleted
    assert ids(library, name=word) == [five[4], five[3], five[1], five[0]]
    assert ids(library, name=word, deleted=True) == [five[2]]
    library.restore(five[2])
    library.restore(five[2])
    assert not library.get(five[2]).deleted
    assert ids(library, name=word) == five[::-1]
    assert ids(library, name=word, deleted=True) == []


def test_a_file_is_given_as_it_is_and_a_missing_one_told(library, make_run, tmp_path):
    file = tmp_path / "result.json"
    file.write_bytes('{"行": 1}\n'.encode())
    run_id = make_run(artifacts=(ArtifactFile(file=file, artifact_path="evaluation/result.json"),))
    assert library.file(run_id, "evaluation/result.json") == '{"行": 1}\n'.encode()
    assert library.paths(run_id, ["evaluation", "spec", "none"]) == {"evaluation/result.json"}
    for path in ("evaluation/rows.json", "program/program.json"):
        with pytest.raises(NotFoundError) as caught:
            library.file(run_id, path)
        assert caught.value.code == "run.no_file"


@pytest.mark.parametrize("run_id", ["0" * 32, "no such", "../x", "x" * 300])
def test_an_unknown_run_is_not_found(library, run_id):
    for call in (library.get, library.delete, library.restore, lambda i: library.file(i, "a/b"),
                 lambda i: library.paths(i, ["a"])):  # fmt: skip
        with pytest.raises(NotFoundError) as caught:
            call(run_id)
        assert caught.value.code == "run.unknown"


def test_what_was_registered_of_a_run_is_told(library, registry, make_run, name):
    runs = [make_run() for _ in range(3)]
    for run_id in (runs[0], runs[1]):
        request = RegisterRequest(run_id=run_id, name=name, who="t")
        registry.register(
            request, compiled(), tags={}, input_example={"message": "m", "count": 1, "tags": []}
        )
    found = library.registrations(runs)
    assert [(made.name, made.version) for made in found[runs[1]]] == [(name, 2)]
    assert [(made.name, made.version) for made in found[runs[0]]] == [(name, 1)]
    assert found[runs[2]] == ()
    assert library.registrations([]) == {}
