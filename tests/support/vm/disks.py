"""What the machine's disks are made from: the distribution's packages, the checkout, the libraries' wheels."""

from __future__ import annotations

import shutil
import sys
import tomllib
from pathlib import Path

from tests.support.vm.cache import REPOSITORY, Entry, digest, digest_of_files, files
from tests.support.vm.recipe import DISK_MEGABYTES, PYTHON, Recipe, run

CHECKOUT_MEGABYTES = 512
# Of what the tests need, what only looks at the source is not brought.
LINTERS = ("import-linter", "mypy", "ruff")
PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014", "linux")
# What an installed Bakehouse depends on.
INSTALLED_FROM = ("supervisor", "protocol", "deploy", "pyproject.toml", "README.md", "LICENSE")
RELEASES = Path(__file__).with_name("releases.sh")
MAKE_FILE_SYSTEM = ("mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-E", "root_owner=0:0")


def image(recipe: Recipe) -> Entry:
    """The root file system, as a disk and as a directory, the kernel and what it starts with."""

    def make(directory: Path) -> None:
        log = directory / "log"
        tree = directory / "tree"
        run(recipe.command(str(tree)), log)
        recipe.complete(tree)
        shutil.copy(max(tree.glob("boot/vmlinuz-*")), directory / "vmlinuz")
        shutil.copy(max(tree.glob("boot/initrd.img-*")), directory / "initrd")
        system = directory / "system.img"
        run([*MAKE_FILE_SYSTEM, "-d", str(tree), str(system), f"{DISK_MEGABYTES}M"], log)

    return Entry("image", recipe.key).made(make)


def requirements() -> list[str]:
    """Which libraries the machine has to find on its disk: to build, to run, and to test."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    tests = project["project"]["optional-dependencies"]["dev"]
    return [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *(line for line in tests if not line.startswith(LINTERS)),
    ]


def wheels() -> Entry:
    """The libraries, for the machine's Python, whatever this host's is."""
    wanted = requirements()

    def make(directory: Path) -> None:
        platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_x86_64")]
        run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"),
                *("--python-version", PYTHON, "--implementation", "cp", *platforms),
                *("--dest", str(directory), *wanted),
            ],
            directory / "log",
        )

    return Entry("wheels", digest(PYTHON, *wanted)).made(make)


def checkout() -> Entry:
    """The disk with the checkout as it is now, and the wheels beside it."""
    libraries = wheels()

    def make(directory: Path) -> None:
        tree = directory / "tree"
        _bring(tree, libraries)
        _make_disk(tree, directory)

    return Entry("checkout", digest(digest_of_files(files()), libraries.key)).made(make)


def releases(recipe: Recipe) -> Entry:
    """The same, and what deploy/install makes of it, and of a later version; for those who do not try the installation.

    They are made by deploy/install itself, in the machine's root directory but by this host's processors.
    """
    libraries, host = wheels(), image(recipe)
    names = [name for name in files() if name.parts[0] in INSTALLED_FROM]

    def make(directory: Path) -> None:
        tree = directory / "tree"
        _bring(tree, libraries)
        with host.used() as kept:
            script = [str(RELEASES), str(kept / "tree"), str(tree)]
            run(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child", *script],
                directory / "log",
            )
        _make_disk(tree, directory)

    parts = (digest_of_files(names), libraries.identity, host.identity, RELEASES.read_text())
    return Entry("releases", digest(*parts)).made(make)


def _bring(tree: Path, libraries: Entry) -> None:
    """The checkout and the wheels, as they are found below /srv."""
    for name in files():
        place = tree / "bakehouse" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, place)
    with libraries.used() as kept:
        (tree / "wheels").mkdir()
        for wheel in kept.glob("*.whl"):
            shutil.copy(wheel, tree / "wheels")


def _make_disk(tree: Path, directory: Path) -> None:
    command = [*MAKE_FILE_SYSTEM, "-O", "^has_journal", "-d", str(tree)]
    disk = str(directory / "disk.img")
    run([*command, disk, f"{CHECKOUT_MEGABYTES}M"], directory / "log")
    shutil.rmtree(tree)
