"""DSPyUI: the workbench for DSPy programs, with MLflow as the system of record."""

__version__ = "0.1.0"
