"""What setup.cfg cannot say: the module `onnxptq.cli` lies at the top of the checkout as `cli.py`."""

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildPy(build_py):
    def find_modules(self):
        return [("onnxptq", "cli", "cli.py")]


setup(cmdclass={"build_py": BuildPy})
