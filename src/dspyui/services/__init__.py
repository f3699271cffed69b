"""The use cases. They speak only the domain; bootstrap hands them their adapters."""

from dataclasses import dataclass

from dspyui.domain.jobs import JobStore
from dspyui.domain.lms import LocalLM
from dspyui.domain.registry import ModelRegistry
from dspyui.domain.runs import RunStore, TrackingServer
from dspyui.domain.storage import DataFolder, ProgramStore
from dspyui.domain.uploads import UploadStore
from dspyui.services.batches import BatchService
from dspyui.services.data import DataService
from dspyui.services.feedback import FeedbackService
from dspyui.services.jobs import JobService
from dspyui.services.lms import LMService
from dspyui.services.metrics import MetricService
from dspyui.services.models import ModelService
from dspyui.services.predict import PredictService
from dspyui.services.record import RecordService
from dspyui.services.register import RegisterService
from dspyui.services.reuse import ReuseService
from dspyui.services.runs import RunService
from dspyui.services.traces import TraceService
from dspyui.services.waiting import WaitingService
from dspyui.settings import Settings


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a face of the program (pages, API, command line) may call."""

    settings: Settings
    tracking: TrackingServer
    local_lm: LocalLM
    lms: LMService
    data: DataService
    metrics: MetricService
    jobs: JobService
    batches: BatchService
    predict: PredictService
    feedback: FeedbackService
    record: RecordService
    waiting: WaitingService
    register: RegisterService
    reuse: ReuseService
    runs: RunStore
    run_list: RunService
    traces: TraceService
    registry: ModelRegistry
    models: ModelService
    job_store: JobStore
    programs: ProgramStore
    uploads: UploadStore
    folder: DataFolder
