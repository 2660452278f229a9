"""Manual pages, completion and the settings file are printed from the code, and leave nothing out."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import attrs
import click
import pytest

from deploy.manuals import commands, daemon, settings
from deploy.manuals.__main__ import main
from deploy.manuals.roff import Page
from supervisor.__main__ import command_line
from supervisor.cli.commands import bakehouse
from supervisor.config import Config, parse

VERSION = "1.2.3"
PAGES = [*commands.pages(VERSION), daemon.page(VERSION), settings.page(VERSION)]


def kinds() -> list[type]:
    values: list[object] = [getattr(Config(), field.name) for field in attrs.fields(Config)]
    return [Config, *(type(value) for value in values if attrs.has(type(value)))]


@pytest.mark.parametrize("kind", kinds())
def test_every_setting_is_explained_in_its_docstring(kind: type) -> None:
    assert attrs.has(kind)
    assert list(settings.meanings(kind)) == [field.name for field in attrs.fields(kind)]


def test_the_settings_file_sets_nothing() -> None:
    assert parse(settings.explained_file(), "bakehouse.toml") == Config()


def test_the_settings_file_names_every_default() -> None:
    lines = settings.explained_file().splitlines()
    everything = "\n".join(
        line[1:] if line.startswith("#") and line[1:2].isalpha() else line for line in lines
    )
    usual = Config()
    assert parse(everything, "bakehouse.toml") == attrs.evolve(usual, socket=usual.socket_path)


def test_settings_of_all_kinds_are_written_as_toml() -> None:
    assert settings.written(value=True) == "true"
    assert settings.written(1_000_000) == "1_000_000"
    assert settings.written(2.5) == "2.5"
    assert settings.written(("a", 'b"\\')) == '["a", "b\\"\\\\"]'
    with pytest.raises(TypeError, match="None"):
        settings.written(None)


def paths_of(command: click.Command, name: str) -> list[str]:
    below = command.commands.items() if isinstance(command, click.Group) else ()
    return [name, *(path for child, one in below for path in paths_of(one, f"{name}-{child}"))]


def test_every_command_has_a_page() -> None:
    names = [page.name for page in commands.pages(VERSION)]
    assert sorted(names) == sorted(paths_of(bakehouse, "bakehouse"))


def test_every_option_of_the_daemon_is_told() -> None:
    text = daemon.page(VERSION).render()
    for option in command_line()._option_string_actions:
        assert option.replace("-", "\\-") in text


def test_every_option_of_a_command_is_told() -> None:
    text = next(page for page in PAGES if page.name == "bakehouse-image-build").render()
    for option in ("\\-\\-build\\-arg", "\\-\\-file", "\\-\\-no\\-cache", "\\-\\-tag"):
        assert option in text


@pytest.mark.parametrize(
    "context",
    list(commands._contexts(click.Context(bakehouse, info_name="bakehouse"))),
    ids=lambda context: context.command_path,
)
def test_every_option_says_what_it_does(context: click.Context) -> None:
    options = [one for one in context.command.params if isinstance(one, click.Option)]
    assert [one.name for one in options if not one.help] == []
    assert context.command.help


def test_text_is_no_request_of_roff() -> None:
    page = Page("x", 1, "y", VERSION)
    page.text(".so /etc/passwd", "'nothing \\*[evil] ``-a.b``")
    page.literal(".so x\n\\fBnot bold")
    page.terms([(".term", ".meaning")])
    lines = page.render().splitlines()
    requests = {line.split()[0] for line in lines if line.startswith((".", "'"))}
    assert requests <= {".TH", ".SH", ".PP", ".RS", ".nf", ".fi", ".RE", ".TP", '.\\"'}
    assert "\\(aqnothing \\e*[evil] \\fB\\-a.b\\fR" in page.render()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.name}.{page.section}")
def test_a_page_is_formatted_without_complaint(page: Page) -> None:
    if not shutil.which("groff"):
        pytest.skip("needs groff")
    done = subprocess.run(
        ["groff", "-Kutf8", "-man", "-Tutf8", "-ww", "-P-cbou"],
        input=page.render().encode(),
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    assert b"NAME" in done.stdout


def test_all_is_written_below_a_directory(tmp_path: Path) -> None:
    main(tmp_path)
    share = tmp_path / "usr" / "local" / "share"
    assert (share / "man" / "man8" / "bakehoused.8").read_text().startswith('.\\"')
    assert (share / "man" / "man5" / "bakehouse.toml.5").exists()
    assert "_BAKEHOUSE_COMPLETE" in (share / "zsh/site-functions/_bakehouse").read_text()
    assert (tmp_path / "etc/bakehouse/bakehouse.toml").exists()


def test_the_shell_completes_commands() -> None:
    if not shutil.which("bash"):
        pytest.skip("needs bash")
    text = commands.completions()["bash-completion/completions/bakehouse"]
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "complete -o nosort -F _bakehouse_completion bakehouse" in text
