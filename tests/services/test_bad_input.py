"""Every bad input gets a sentence in both languages that names what is wrong, and costs nothing that was there.

What a faulty model does to a whole compile is in `test_model_faults`, a full disk in `adapters/test_full_disk`, a name
that a prompt has in `adapters/test_mlflow_registry`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dspyui.errors import BadRequestError, DSPyUIError, RefusedError
from dspyui.services.documents import parse_spec
from dspyui.settings import Settings
from tests.api.world import World
from tests.fake_openai import Fault
from tests.sentences import told
from tests.services.test_compile_run import run, server, spec, start, store  # noqa: F401 - fixtures among them

MEGABYTE = 1024 * 1024
ROWS = "".join(f"m{number},p{number}\n" for number in range(12))
Ask = Callable[[World, Path], Any]


@pytest.fixture
def world(settings: Settings) -> World:
    return World(settings)


def upload(name: str, content: bytes | str) -> Ask:
    """Uploads a file."""
    data = content if isinstance(content, bytes) else content.encode()
    return lambda world, _folder: world.services.data.keep_upload(name, data)


def compile_file(name: str, content: bytes | str, **field: Any) -> Ask:
    """Compiles a file by its path; `field` is more about the output field."""

    def ask(world: World, folder: Path) -> None:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        outputs = [{"name": "product", **field}]
        program = {"signature": {"inputs": [{"name": "message"}], "outputs": outputs}}
        world.submitted(program=program, data={"path": str(path)})

    return ask


def compile_fields(*fields: dict[str, Any]) -> Ask:
    """Compiles a program with these input fields."""
    signature = {"inputs": list(fields), "outputs": [{"name": "product"}]}
    return lambda world, _folder: world.submitted(program={"signature": signature})


def compile_model(**lm: Any) -> Ask:
    """Compiles with this model."""
    return lambda world, _folder: world.submitted(lms={"task": lm})


def huge() -> bytes:
    return b"message,product\n" + b"a,b\n" * (50 * MEGABYTE)


BAD: dict[str, tuple[Ask, str, tuple[str, ...]]] = {
    "an empty file is uploaded": (upload("nothing.csv", ""), "file.empty", ("nothing.csv",)),
    "an empty file is compiled": (compile_file("nothing.jsonl", ""), "file.empty", ("nothing.jsonl",)),
    "column names alone": (upload("names.csv", "message,product\n"), "file.no_rows", ("names.csv",)),
    "one row": (compile_file("one.csv", "message,product\nm,p\n"), "data.split_empty", ("1",)),
    "one row typed": (
        lambda world, _folder: world.submitted(data={"rows": [{"message": "m", "product": "p"}]}),
        "data.split_empty",
        ("1",),
    ),
    "a missing column": (
        compile_file("other.csv", f"message,answer\n{ROWS}"), "data.columns", ("product", "message, answer"),
    ),
    "a column of the wrong type": (
        compile_file("words.csv", f"message,product\nm,3\n{ROWS}", type="int"), "value.type", ("product", "p0", "2"),
    ),
    "a value that is no choice": (
        compile_file("words.csv", f"message,product\n{ROWS}", type="choice", choices=["p0", "p1"]),
        "value.type",
        ("product", "p2", "p0"),
    ),
    "a file of 200 MB": (
        lambda world, _folder: world.services.data.keep_upload("huge.csv", huge()), "file.large", ("huge.csv", "200"),
    ),
    "a picture": (upload("cat.csv", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"), "file.encoding", ("cat.csv",)),
    "noise": (upload("noise.jsonl", bytes(range(128, 256)) * 9), "file.encoding", ("noise.jsonl",)),
    "a field twice": (compile_fields({"name": "message"}, {"name": "message"}), "signature.twice", ("message",)),
    "a field of both sides": (compile_fields({"name": "product"}), "signature.twice", ("product",)),
    "a field that is a path": (compile_fields({"name": "../../x"}), "field_name.identifier", ("../../x",)),
    "a field that is a word of Python": (compile_fields({"name": "class"}), "field_name.keyword", ("class",)),
    "a choice without choices": (
        compile_fields({"name": "kind", "type": "choice", "choices": []}), "field.choices", ("kind",),
    ),
    "a name that is no model": (compile_model(model="gpt-4o"), "lm.model", ("gpt-4o",)),
    "a provider that nobody knows": (compile_model(model="foo/bar"), "lm.provider", ("foo/bar", "openai/foo/bar")),
    "a bundled model that is none": (compile_model(model="local/big"), "lm.local_unknown", ("local/big",)),
    "a key that is missing": (
        compile_model(model="openai/gpt-4o-mini"), "lm.key_unset", ("openai/gpt-4o-mini", "OPENAI_API_KEY"),
    ),
    "a spec with unknown keys": (
        lambda _world, _folder: parse_spec("{sed: 1, colour: red, program: {}, data: {path: rows.csv}}"),
        "spec.extra_near",
        ("sed, colour", "seed"),
    ),
    "a spec file that is loaded into the form": (
        lambda world, _folder: world.services.reuse.file(b"prgram: 3\n"), "spec.extra_near", ("prgram", "program"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_input_is_told_and_costs_nothing(world: World, tmp_path: Path, name: str) -> None:
    ask, code, parts = BAD[name]
    job_id = world.done()
    kept, _table = world.services.data.keep_upload("mine.csv", f"message,product\n{ROWS}".encode())
    before = _everything(world, job_id)
    queued = list(world.queue.submitted)
    with pytest.raises(BadRequestError) as caught:
        ask(world, tmp_path)
    assert caught.value.code == code
    told(caught.value, *parts)
    assert _everything(world, job_id) == before
    assert world.queue.submitted == queued
    assert [info.digest for info in world.services.uploads.search()] == [kept.digest]
    assert not (tmp_path.parent / "x").exists()


def _everything(world: World, job_id: str) -> dict[str, bytes]:
    """Every file of every job, by its path."""
    assert [job.id for job in world.jobs.search()] == [job_id]
    folder = world.jobs.folder(job_id).parent
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_field_in_chinese_is_no_bad_input(world: World) -> None:
    signature = {"inputs": [{"name": "客户留言"}], "outputs": [{"name": "产品"}]}
    rows = [{"客户留言": f"第{number}条", "产品": f"灯{number}"} for number in range(12)]
    job_id = world.submitted(program={"signature": signature}, data={"rows": rows})
    assert list(world.jobs.rows(job_id)) == rows


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (Fault(404, "", body='{"error": {"message": "no model fake here", "code": "model_not_found"}}'),
         "engine.model_unknown", "no model fake here"),
        (Fault(401, "who are you"), "engine.key_needed", "who are you"),
        (Fault(403, "not without a key"), "engine.key_needed", "not without a key"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("from_call", [1, 20])
def test_a_model_that_refuses_is_told(store, server, tmp_path, fault, code, words, from_call) -> None:  # noqa: F811
    """At the first call, and in the middle of a compile."""
    answer = server.reply
    server.reply = lambda messages: fault if len(server.requests) >= from_call else answer(messages)
    asked = spec(server, threads=1)
    job = start(store, asked)
    with pytest.raises(RefusedError) as caught:
        run(store, job, tmp_path)
    assert caught.value.code == code
    told(caught.value, "openai/fake", words)
    assert len(server.requests) == from_call
    assert store.find_result(job.id) is None
    assert store.spec(job.id) == asked
    assert len(store.rows(job.id)) == len(asked.data.rows or ())
    assert store.progress(job.id).usage.lm_calls == from_call
    assert store.events(job.id)[0]
    # Mended, it runs to its end, and asks for nothing twice.
    server.reply = answer
    job = store.update(job.id, lambda j: j.model_copy(update={"attempt": 2}))
    assert run(store, job, tmp_path).optimised.score == 1.0


def test_a_sentence_that_is_missing_or_names_nothing_is_found() -> None:
    """What the tests above lean on."""
    with pytest.raises(AssertionError):
        told(DSPyUIError("no.such_code"))
    with pytest.raises(AssertionError):
        told(BadRequestError("file.empty"))
    with pytest.raises(AssertionError):
        told(BadRequestError("file.empty", name="a.csv"), "b.csv")
