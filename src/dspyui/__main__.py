"""`python -m dspyui` is the `dspyui` command."""

from dspyui.cli import main

if __name__ == "__main__":
    main()
