"""A Python where DSPyUI is not installed, as on the machines where registered versions are used."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

# Data of DSPyUI may lie among the packages; its code does not.
OUR_CODE = "import dspyui.errors"


def python_elsewhere(root: Path, *more: Path, others: bool = True) -> Path:
    """Make one in the folder `root` that has all packages of this Python, and those in `more`; gives its `bin` folder.

    Without `others` it has those in `more` alone. A folder named in a `.pth` file is searched, but the `.pth` files in
    it are not read, and it is such a file that makes DSPyUI importable here.
    """
    venv.create(root, with_pip=False)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(root)}))
    here = [folder for folder in sys.path if others and Path(folder).name == packages.name]
    lines = "".join(f"{folder}\n" for folder in (*here, *more))
    (packages / "others.pth").write_text(lines, encoding="utf-8")
    found = subprocess.run([root / "bin" / "python", "-c", OUR_CODE], check=False, capture_output=True)
    assert b"No module named 'dspyui" in found.stderr
    return root / "bin"
