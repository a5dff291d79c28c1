import sys
from glob import glob

from setuptools import Extension, setup


def extension(room, name):
    """pcaptools/ROOM/_NAME.pyx with the C headers of its room and of the core."""
    folders = list(dict.fromkeys(["pcaptools/core/csrc", f"pcaptools/{room}/csrc"]))
    return Extension(
        f"pcaptools.{room}._{name}",
        [f"pcaptools/{room}/_{name}.pyx"],
        include_dirs=folders,
        depends=[*glob("pcaptools/core/*.pxd"), *(header for folder in folders for header in glob(f"{folder}/*.h"))],
        extra_compile_args=["-O3", "-fno-strict-aliasing", "-Wall"],
    )


extensions = [
    extension("core", name)
    for name in ("choose", "core", "edits", "flows", "generate", "info", "merge", "replay", "sessions", "sides")
]
extensions.append(extension("files", "many"))
if sys.platform == "linux":
    extensions += [extension("net", name) for name in ("net", "ring")]

setup(ext_modules=extensions)
