"""What can be loaded back: specs of jobs, of Runs made elsewhere, of files; and programs."""

from hashlib import sha256

import pytest

from dspyui.adapters.files.jobs import FileJobStore
from dspyui.adapters.files.metrics import FileMetrics
from dspyui.adapters.files.tables import FileTableReader
from dspyui.adapters.files.uploads import FileUploadStore
from dspyui.domain.parsing import parse_dataset
from dspyui.domain.programs import PROGRAM_FORMAT
from dspyui.domain.splits import Splits, sort_rows, split_rows
from dspyui.domain.tables import RawTable
from dspyui.errors import BadRequestError, NotFoundError, UnavailableError
from dspyui.services.data import DataService
from dspyui.services.documents import dump_spec, spec_of
from dspyui.services.metrics import MetricService
from dspyui.services.reuse import ReuseService
from dspyui.settings import Settings
from tests.contracts.fakes import InMemoryRunStore
from tests.mlflow_world import compiled

ROWS = [{"q": f"问 {n % 25}", "a": f"{n}"} for n in range(40)]
LANGUAGES = ("zh_CN", "en_US")


class Runs(InMemoryRunStore):
    """Runs of another machine: a spec, splits and the digest of all rows."""

    def put(self, run_id, spec, splits=None, digest=None, job=None):
        self.files[run_id] = {"spec/compile.yaml": spec if isinstance(spec, str) else dump_spec(spec)}
        self.kept = splits
        self.digest = digest
        self.job = job
        self.records[run_id] = None

    def get_run(self, run_id):
        self._reach()
        if run_id not in self.records:
            raise NotFoundError("run.unknown", run_id=run_id, address="http://x")

        class Info:
            job_id = self.job
            tags = {} if self.digest is None else {"dspyui.data_digest": self.digest}

        return Info()

    def splits(self, run_id):
        if self.kept is None:
            raise NotFoundError("run.no_data", run_id=run_id)
        return self.kept


@pytest.fixture
def runs():
    return Runs()


@pytest.fixture
def store(tmp_path):
    return FileJobStore(tmp_path / "data")


@pytest.fixture
def data(tmp_path):
    return DataService(FileTableReader(max_bytes=10**8), FileUploadStore(tmp_path / "data"))


@pytest.fixture
def reuse(store, runs, data, tmp_path):
    home = tmp_path / "data"
    metrics = MetricService(Settings.load(tmp_path / "none", {"DSPYUI_HOME": str(home)}), FileMetrics(home))
    return ReuseService(store, runs, data, metrics)


def spec(**changes):
    document = {
        "program": {"name": "抽取 🚀", "signature": {"inputs": [{"name": "q"}], "outputs": [{"name": "a"}]}},
        "data": {"rows": ROWS, "split": {"train": 0.4, "validation": 0.2, "test": 0.4, "seed": 11}},
        "seed": 5,
    }
    return spec_of({**document, **changes})


def elsewhere(**data):
    return spec(data={"path": "/elsewhere/rows.csv", "split": {"seed": 11}, **data})


def splits_of(loaded):
    spec = loaded.spec
    table = RawTable(columns=("q", "a", "_split"), rows=spec.data.rows)
    dataset = parse_dataset(spec.program.signature, spec.data, table, {})
    return sort_rows(dataset.rows, dataset.parts)


def codes(loaded):
    return [notice.code for notice in loaded.notices]


def sentences(loaded):
    return [notice.sentence(language) for notice in loaded.notices for language in LANGUAGES]


def test_typed_rows_come_with_the_spec(reuse, runs):
    runs.put("r", spec())
    loaded = reuse.run("r")
    assert loaded.spec == spec()
    assert codes(loaded) == ["run"]
    assert all("r" in sentence for sentence in sentences(loaded))


@pytest.mark.parametrize("source", [{}, {"path": None, "upload": "a" * 64}])
def test_data_that_is_not_here_is_taken_from_the_run_in_the_same_splits(reuse, runs, source):
    asked = elsewhere(**source)
    splits = split_rows(ROWS, ["q"], asked.data.split)
    runs.put("r", asked, splits)
    loaded = reuse.run("r")
    assert codes(loaded) == ["run", "rows_of_run"]
    assert (loaded.spec.seed, loaded.spec.data.split) == (asked.seed, asked.data.split)
    assert splits_of(loaded) == splits
    assert loaded.spec.model_copy(update={"data": asked.data}) == asked
    assert any("40" in sentence for sentence in sentences(loaded))


def test_splits_that_came_about_otherwise_come_back_as_they_were(reuse, runs):
    splits = Splits(train=tuple(ROWS[:10]), validation=tuple(ROWS[10:15]), test=tuple(ROWS[15:25]))
    runs.put("r", elsewhere(), splits)
    loaded = reuse.run("r")
    assert codes(loaded) == ["run", "rows_of_run"]
    assert splits_of(loaded) == splits


def test_a_file_that_is_here_is_used_and_another_of_its_name_is_told(reuse, runs, data, tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("q,a\n" + "".join(f"{row['q']},{row['a']}\n" for row in ROWS), encoding="utf-8")
    asked = elsewhere(path=str(file))
    digest = data.load(asked.program.signature, asked.data).digest
    runs.put("r", asked, digest=digest)
    assert (reuse.run("r").spec, codes(reuse.run("r"))) == (asked, ["run"])
    runs.put("r", asked, digest="0" * 64)
    assert (reuse.run("r").spec, codes(reuse.run("r"))) == (asked, ["run", "data_other"])
    # What the Run was compiled on is better than another file of the same name.
    runs.put("r", asked, split_rows(ROWS, ["q"], asked.data.split), digest="0" * 64)
    assert codes(reuse.run("r")) == ["run", "rows_of_run"]


def test_a_run_names_a_file_and_its_job_here_knows_where_that_lies(reuse, runs, store, data, tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("q,a\n" + "".join(f"{row['q']},{row['a']}\n" for row in ROWS), encoding="utf-8")
    asked = elsewhere(path=str(file))
    found = data.load(asked.program.signature, asked.data)
    asked = asked.model_copy(update={"digests": {"data": found.digest}})
    job = store.create(asked, found.rows, title="t", who="x")
    splits = split_rows(found.rows, ["q"], asked.data.split)
    assert str(tmp_path) not in dump_spec(asked.portable())
    runs.put("r", asked.portable(), splits, job=job.id)
    assert (reuse.run("r").spec, codes(reuse.run("r"))) == (asked, ["run"])
    # The file has changed, although nothing but the spec tells what it was.
    file.write_text("q,a\nx,y\n" * 20, encoding="utf-8")
    loaded = reuse.run("r")
    assert (codes(loaded), splits_of(loaded)) == (["run", "rows_of_run"], splits)
    # Another machine has no such job: the rows of the Run, and the sentence says so.
    runs.put("r", asked.portable(), splits, job="20261123-224500-1a2b3c4d")
    loaded = reuse.run("r")
    assert (codes(loaded), splits_of(loaded)) == (["run", "rows_of_run"], splits)
    assert all("rows.csv" in sentence and "40" in sentence for sentence in sentences(loaded)[2:])


def own_metric(tmp_path, text="def metric(example, prediction): return 1.0\n"):
    folder = tmp_path / "data" / "metrics"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "length.py").write_text(text, encoding="utf-8")
    return folder / "length.py"


def test_a_metric_of_ones_own_that_has_changed_is_told(reuse, runs, store, tmp_path):
    file = own_metric(tmp_path)
    asked = spec(
        metric={"kind": "custom", "params": {"name": "length"}},
        digests={"metrics/length.py": sha256(file.read_bytes()).hexdigest()},
    )
    runs.put("r", asked)
    job = store.create(asked, ROWS, title="t", who="x")

    def told():
        ways = (reuse.run("r"), reuse.job(job.id), reuse.file(dump_spec(asked).encode()))
        assert all(loaded.spec == asked for loaded in ways)
        return [codes(loaded)[-1:] for loaded in ways]

    assert told() == [["run"], ["job"], []]
    own_metric(tmp_path, "def metric(example, prediction): return 0.5\n")
    assert told() == [["metric_other"]] * 3
    file.unlink()
    assert told() == [["metric_missing"]] * 3
    assert all("metrics/length.py" in sentence for sentence in sentences(reuse.job(job.id))[2:])


def test_a_metric_of_ones_own_of_which_nothing_is_known_is_let_be(reuse, tmp_path):
    own_metric(tmp_path)
    asked = spec(metric={"kind": "custom", "params": {"name": "length"}})
    assert reuse.file(dump_spec(asked).encode()).notices == ()


def test_no_data_anywhere_is_left_to_choose(reuse, runs):
    runs.put("r", elsewhere())
    loaded = reuse.run("r")
    assert (codes(loaded), loaded.has_data) == (["run", "data_missing"], False)
    assert all("/elsewhere/rows.csv" in sentence for sentence in sentences(loaded)[2:])


def test_a_spec_that_is_no_longer_one_is_said_with_its_run(reuse, runs):
    runs.put("r", "program: {name: x}\nfuture: 1\n")
    with pytest.raises(BadRequestError) as caught:
        reuse.run("r")
    assert caught.value.code == "reuse.spec"
    assert all("Run r" in caught.value.text(language) for language in LANGUAGES)


def test_a_run_that_is_not_there_or_a_server_that_is_away_is_raised(reuse, runs):
    with pytest.raises(NotFoundError):
        reuse.run("none")
    runs.away = True
    with pytest.raises(UnavailableError):
        reuse.run("none")


def test_a_job_gives_its_own_rows_when_its_file_is_gone(reuse, store, tmp_path):
    job = store.create(elsewhere(), ROWS, title="t", who="x")
    loaded = reuse.job(job.id)
    assert codes(loaded) == ["job", "rows_of_job"]
    assert list(loaded.spec.data.rows) == ROWS
    assert loaded.spec.data.split == elsewhere().data.split
    with pytest.raises(NotFoundError):
        reuse.job("20261123-224500-1a2b3c4d")


def test_spec_files_and_program_files_are_told_apart(reuse):
    assert reuse.file(dump_spec(spec()).encode("utf-8-sig")).spec == spec()
    assert reuse.file(spec().model_dump_json().encode()).spec == spec()
    program = compiled(module="chain_of_thought")
    loaded = reuse.file(program.to_json().encode())
    assert (loaded.spec.program, loaded.spec.lms.task) == (program.spec, program.lm)
    assert (loaded.spec.optimizer, loaded.has_data) == (program.optimizer, False)
    assert all(program.spec.name in sentence for sentence in sentences(loaded))


def test_a_spec_file_with_an_upload_that_is_not_here_leaves_the_data_to_choose(reuse):
    asked = spec(data={"upload": "a" * 64})
    loaded = reuse.file(dump_spec(asked).encode())
    assert (codes(loaded), loaded.has_data) == (["upload_missing"], False)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"\xff\xfe\x00", "spec.yaml"),
        (b"program: [", "spec.yaml"),
        (b"program: {name: x, colour: red}\ndata: {rows: []}", "spec.extra"),
        (dump_spec(spec()).encode() + b"colour: red\n", "spec.extra"),
        (compiled().to_json().replace('"message"', '"massage"').encode(), "program.digest"),
        (
            compiled().to_json().replace(f'"format": {PROGRAM_FORMAT}', '"format": 9').encode(),
            "program.unreadable",
        ),
    ],
)
def test_what_is_neither_says_what_is_wrong(reuse, content, code):
    with pytest.raises(BadRequestError) as caught:
        reuse.file(content)
    assert caught.value.code == code
    assert caught.value.text("zh_CN") != caught.value.text("en_US")
