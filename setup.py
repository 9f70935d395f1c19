"""Compiles the CPU kernel for each instruction set; where that fails the package installs without it.

The libraries have no Python symbols: one wheel serves every Python 3 (`make wheel`).
"""

import os
import platform
import runpy
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

SOURCES = Path("talking_heads/kernels/cpu/src")
DIGEST = runpy.run_path("talking_heads/kernels/cpu/sources.py")["digest"]()
FLAGS = [
    *("-std=c++17", "-O3", "-g0", "-fvisibility=hidden", "-fno-math-errno", "-Wno-psabi"),
    f'-DSOURCES="{DIGEST}"',
]
SETS = {"plain": []}
# Of the machine that the kernel is for: .ci/wheel names another one when it compiles for it.
MACHINE = os.environ.get("TALKING_HEADS_MACHINE", platform.machine()).lower()
if MACHINE in ("x86_64", "amd64"):
    SETS["avx2"] = ["-mavx2", "-mfma"]
    SETS["avx512"] = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma"]


class BuildKernels(build_ext):
    any_python = False

    def get_ext_filename(self, name: str) -> str:
        return name.replace(".", "/") + ".so" if self.any_python else super().get_ext_filename(name)

    def build_extension(self, extension: Extension) -> None:
        # OpenMP is compiled for but not linked: torch's own is in the process already, and two would quarrel.
        flags = extension.extra_compile_args
        try:
            extension.extra_compile_args = [*flags, "-fopenmp"]
            super().build_extension(extension)
        except Exception:  # a compiler without OpenMP: one thread
            extension.extra_compile_args = flags
            super().build_extension(extension)


class AnyPython(bdist_wheel):
    def run(self) -> None:
        self.distribution.get_command_obj("build_ext").any_python = True
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


EXTENSIONS = [
    Extension(
        f"talking_heads.kernels.cpu.{name}",
        [str(SOURCES / "kernel.cpp")],
        depends=[str(path) for path in sorted(SOURCES.glob("*.h"))],
        extra_compile_args=[*FLAGS, *flags],
        optional=True,
    )
    for name, flags in SETS.items()
]

if __name__ == "__main__":
    setup(cmdclass={"bdist_wheel": AnyPython, "build_ext": BuildKernels}, ext_modules=EXTENSIONS)
