"""Log drivers and their options: what is served, what is refused, and what details show."""

from __future__ import annotations

import pytest

from supervisor.access.requests import ContainerRequest, LogRequest
from supervisor.config import RuntimeConfig
from supervisor.errors import InvalidArgument
from supervisor.oci.image import Execution
from supervisor.runtime.creation import ImageFacts, container_record
from supervisor.runtime.log_settings import LogSettings, check_log, details, log_settings
from supervisor.runtime.records import ContainerRecord
from supervisor.runtime.sanity import Host

CONFIG = RuntimeConfig(log_bytes_max=1_000, log_files_max=3)
HOST = Host(cpus=2, hard_limits={"nofile": 20_000})
BROKEN = "failed to initialize logging driver: "


def record(options: dict[str, str]) -> ContainerRecord:
    request = ContainerRequest(
        image="bb",
        name="web",
        command=("sh", "-c"),
        env=("LEVEL=a b", "OS=linux"),
        labels={"com.a": "1", "b": "x,y"},
        log=LogRequest("", options),
    )
    facts = ImageFacts("sha256:" + "ab" * 32, (), Execution())
    return container_record(request, facts, 1_000, (), remapped=True, host=HOST)


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("nope", {}, "logger: no log driver named 'nope' is registered"),
        ("", {"x": "1"}, "unknown log opt 'x' for json-file log driver"),
        ("json-file", {"path": "/x"}, "unknown log opt 'path' for json-file log driver"),
        ("local", {"tag": "x"}, "unknown log opt 'tag' for log driver local"),
        ("journald", {"max-size": "1m"}, "unknown log opt 'max-size' for journald log driver"),
        ("", {"mode": "fast"}, "logger: logging mode not supported: fast"),
        (
            "",
            {"max-buffer-size": "4m"},
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        ("", {"max-size": "many"}, f"{BROKEN}invalid size: 'many'"),
        ("", {"max-size": "0"}, f"{BROKEN}max-size must be a positive number"),
        ("", {"max-file": "0"}, f"{BROKEN}max-file cannot be less than 1"),
        ("", {"max-file": "1001"}, f"{BROKEN}max-file cannot be more than 1000"),
        ("", {"max-file": "two"}, f"{BROKEN}max-file 'two' is no whole number"),
        ("", {"compress": "maybe"}, f"{BROKEN}compress 'maybe' is neither true nor false"),
        (
            "",
            {"compress": "true", "max-file": "3"},
            f"{BROKEN}compress cannot be true when max-file is less than 2 or max-size is not set",
        ),
        ("", {"tag": "{{.Secret}}"}, f"{BROKEN}cannot read the tag '{{{{.Secret}}}}'"),
        ("", {"env-regex": "("}, f"{BROKEN}cannot read the expression '('"),
    ],
)
def test_what_makes_no_sense_is_refused_in_dockerds_words(
    driver: str, options: dict[str, str], words: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_log(LogRequest(driver, options))
    assert caught.value.message.startswith(words)


@pytest.mark.parametrize(
    ("driver", "options", "settings"),
    [
        ("", {}, LogSettings("json-file", 1_000, 3)),
        ("json-file", {"max-size": "1.5k"}, LogSettings("json-file", 1_500, 1)),
        ("local", {"max-size": "2 MiB"}, LogSettings("local", 2_000_000, 3)),
        (
            "json-file",
            {"max-size": "1g", "max-file": "5", "compress": "true"},
            LogSettings("json-file", 10**9, 5, compressed=True),
        ),
        ("", {"mode": "non-blocking", "max-buffer-size": "4m"}, LogSettings("json-file", 1_000, 3)),
        ("none", {"whatever": "1"}, LogSettings("none", 1_000, 3)),
    ],
)
def test_what_is_asked_for_goes_over_the_daemons_bounds(
    driver: str, options: dict[str, str], settings: LogSettings
) -> None:
    request = LogRequest(driver, options)
    check_log(request)
    assert log_settings(request, CONFIG) == settings


def test_details_are_chosen_sorted_and_written_as_in_a_query() -> None:
    assert details(record({})) == ""
    assert details(record({"labels": "com.a,missing", "env": "LEVEL"})) == "LEVEL=a+b,com.a=1"
    assert details(record({"labels-regex": "^b$", "env-regex": "^O"})) == "OS=linux,b=x%2Cy"
    tagged = record({"tag": "{{.Name}}/{{ .ImageName }}/{{.ImageID}}/{{.ID}}"})
    assert details(tagged) == f"tag=web%2Fbb%2F{'ab' * 6}%2F{tagged.short_id}"
