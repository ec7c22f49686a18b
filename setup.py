"""Refuses an installation that leaves the checkout; all settings are in pyproject.toml."""

from setuptools import setup
from setuptools.command.build_py import build_py


class OnlyEditable(build_py):
    def run(self) -> None:
        if not self.editable_mode:
            raise SystemExit(
                "This project is used from its checkout, where the scripts are, and its packages\n"
                "have everyday names (models, training). Install it with: make venv\n"
                "or, into an environment of yours: python -m pip install -e ."
            )
        super().run()


setup(cmdclass={"build_py": OnlyEditable})
