"""The trials' chart says on which rows its scores were made: COPRO's and SIMBA's are training scores."""

import pytest
from nicegui import ui
from nicegui.testing import User

from dspyui.domain.compiles import Progress, TrialScore
from dspyui.domain.jobs import JobEvent
from tests.api.world import T0, World, result
from tests.pages import element, sees, until, words

TRIALS = (
    TrialScore(step=0, label="baseline", score=0.25),
    TrialScore(step=1, label="#1", score=0.5, rows="train"),
    TrialScore(step=2, label="#2", score=0.75, rows="minibatch"),
)
SAID = {
    "en": (
        ["Trials (validation)", "Trials (part of the validation rows)", "Trials (training rows)"],
        ["Baseline (validation) 0.25", "#1 (training rows) 0.50", "#2 (part of the validation rows) 0.75"],
    ),
    "zh": (
        ["试验（验证集）", "试验（部分验证集）", "试验（训练集）"],
        ["基线（验证集）0.25", "#1（训练集）0.50", "#2（部分验证集）0.75"],
    ),
}


@pytest.mark.parametrize("language", SAID)
async def test_the_chart_and_its_words_name_the_rows(user: User, world: World, language: str):
    job_id = world.submitted()
    world.jobs.update(job_id, lambda job: job.model_copy(update={"status": "running", "started_at": T0}))
    world.jobs.write_progress(job_id, Progress(phase="optimising", trials=TRIALS))
    await user.open(f"/jobs/{job_id}?lang={language}")
    await until(sees(user, marker="chart"))
    charts = [part for part in element(user, "chart").descendants() if isinstance(part, ui.echart)]
    names, said = SAID[language]
    series = charts[-1].options["series"]
    assert [one["name"] for one in series] == names
    assert [[point["value"] for point in one["data"]] for one in series] == [
        [0.25, None, None],
        [None, None, 0.75],
        [None, 0.5, None],
    ]
    assert len({one["symbol"] for one in series}) == 3
    for sentence in said:
        assert sentence in words(user, "chart")


@pytest.mark.parametrize(
    ("kind", "english", "chinese"),
    [
        ("trial", "on the validation rows", "验证集得分"),
        ("trial_minibatch", "on part of the validation rows", "部分验证集"),
        ("trial_train", "on training rows", "训练集得分"),
    ],
)
def test_the_log_names_the_rows(kind: str, english: str, chinese: str) -> None:
    event = JobEvent(at=T0, kind=f"compile.{kind}", values={"step": 3, "label": "#3", "score": "0.50"})
    assert english in event.sentence("en_US")
    assert chinese in event.sentence("zh_CN")


async def test_a_finished_job_without_trials_draws_none(user: User, world: World):
    job_id = world.done()
    world.jobs.write_progress(job_id, Progress(phase="saving", baseline_curve=(0.25,)))
    await user.open(f"/jobs/{job_id}?lang=en")
    await until(sees(user, marker="chart"))
    charts = [part for part in element(user, "chart").descendants() if isinstance(part, ui.echart)]
    assert [chart.visible for chart in charts] == [True, False]
    assert [one["name"] for one in charts[0].options["series"]] == ["Baseline"]


ASKED = {
    "en": "Duration 12 s LM calls 7 Cache hits 1 Tokens 123 (100 in, 23 out) "
    "Embedding requests 3 (1,200 tokens) Cost {}",
    "zh": "用时 12 秒 LM 调用 7 缓存命中 1 Token 123（输入 100，输出 23） 嵌入请求 3 次（1,200 个 token） 费用 {}",
}
COSTS = [
    ("en", None, "not known: a model has no listed price"),
    ("en", 0.0, "$0.00"),
    ("en", 0.0125, "about $0.013"),
    ("zh", None, "未知：有模型没有公开价格"),
    ("zh", 0.0, "$0.00"),
    ("zh", 0.0125, "约 $0.013"),
]


@pytest.mark.parametrize(("language", "cost", "said"), COSTS)
async def test_what_was_asked_and_what_it_cost(
    user: User, world: World, language: str, cost: float | None, said: str
):
    job_id = world.done()
    found = result()
    usage = found.usage.model_copy(update={"embedding_calls": 3, "embedding_tokens": 1200, "cost": cost})
    world.jobs.write_result(job_id, found.model_copy(update={"usage": usage}))
    await user.open(f"/jobs/{job_id}?lang={language}")
    await until(sees(user, marker="record"))
    assert ASKED[language].format(said) in words(user, "record")
