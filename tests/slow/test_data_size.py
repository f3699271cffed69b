"""Big data files: read by path with bounded memory, refused as an upload."""

import subprocess
import sys

import pytest

from dspyui.adapters.files.tables import FileTableReader
from dspyui.errors import BadRequestError

pytestmark = pytest.mark.slow

MEGABYTE = 1024 * 1024
PREVIEW = """
import resource, sys
from pathlib import Path
from dspyui.adapters.files.tables import FileTableReader
from dspyui.adapters.files.uploads import FileUploadStore
from dspyui.domain.datasets import DataSpec
from dspyui.domain.signatures import FieldSpec, SignatureSpec
from dspyui.services.data import DataService

signature = SignatureSpec(inputs=(FieldSpec(name="question"),), outputs=(FieldSpec(name="answer"),))
data = DataService(FileTableReader(max_bytes=100 * 1024**2), FileUploadStore(Path(sys.argv[2])))
print(data.preview(signature, DataSpec(path=sys.argv[1])).rows)
status = Path("/proc/self/status")
if status.exists():
    # What Linux tells as ru_maxrss begins with the size of the process that started this one.
    print(int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    file = tmp_path_factory.mktemp("big") / "big.csv"
    filling = "a word or two " * 70
    with file.open("w", encoding="utf-8") as out:
        out.write("question,answer\n")
        number = 0
        while out.tell() < 200 * MEGABYTE:
            out.write("".join(f"{number + n} {filling},answer {n}\n" for n in range(1000)))
            number += 1000
    return file, number


def test_a_file_of_200_mb_by_path_takes_far_less_than_a_gigabyte(big, tmp_path):
    file, rows = big
    command = [sys.executable, "-c", PREVIEW, str(file), str(tmp_path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=250).stdout.split()
    assert int(out[0]) == rows
    assert int(out[1]) < 800 * MEGABYTE


def test_a_file_of_200_mb_is_refused_as_an_upload(big):
    with pytest.raises(BadRequestError) as caught:
        FileTableReader(max_bytes=100 * MEGABYTE).read("big.csv", big[0].read_bytes())
    assert caught.value.code == "file.large"
    assert "may have 100 MB" in str(caught.value)
    assert "give its path" in str(caught.value)
