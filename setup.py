import sys
from glob import glob

from setuptools import Extension, setup

CORE = "pcaptools/core/csrc"
NET = "pcaptools/net/csrc"
CFLAGS = ["-O3", "-fno-strict-aliasing", "-Wall"]

extensions = [
    Extension(
        "pcaptools.core._core",
        ["pcaptools/core/_core.pyx"],
        include_dirs=[CORE],
        depends=glob(f"{CORE}/*.h"),
        extra_compile_args=CFLAGS,
    )
]
if sys.platform == "linux":
    extensions.append(
        Extension(
            "pcaptools.net._net",
            ["pcaptools/net/_net.pyx"],
            include_dirs=[CORE, NET],
            depends=glob(f"{CORE}/*.h") + glob(f"{NET}/*.h"),
            extra_compile_args=CFLAGS,
        )
    )

setup(ext_modules=extensions)
