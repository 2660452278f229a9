"""What the daemon says of itself and the host, in Docker's JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from supervisor.api.http import JsonObject
from supervisor.api.services import HostFacts
from supervisor.clock import now_ns, rfc3339
from supervisor.config import Config
from supervisor.runtime.log_settings import DRIVERS

API_VERSION = (1, 41)
API_VERSION_MIN = (1, 22)
NAMED_SECURITY_SINCE = (1, 25)
"""Before, a security option was its name alone, and there was an execution driver."""

GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
REGISTRY = "https://index.docker.io/v1/"


def dotted(version: tuple[int, int]) -> str:
    """``1.41``."""
    return f"{version[0]}.{version[1]}"


def version(facts: HostFacts) -> JsonObject:
    """``GET /version``."""
    details = {
        "ApiVersion": dotted(API_VERSION),
        "MinAPIVersion": dotted(API_VERSION_MIN),
        "Arch": GO_ARCHITECTURES.get(facts.architecture, facts.architecture),
        "Os": "linux",
        "KernelVersion": facts.kernel,
        "BuildTime": "",
        "Experimental": "false",
        "GitCommit": "",
        "GoVersion": "",
    }
    return {
        "Platform": {"Name": "Bakehouse"},
        "Components": [
            {"Name": "Engine", "Version": facts.version, "Details": details},
            {"Name": facts.runtime, "Version": facts.runtime_version, "Details": {}},
        ],
        **details,
        "Version": facts.version,
        "Experimental": False,
    }


def info(
    facts: HostFacts,
    config: Config,
    counts: Mapping[str, int],
    images: int,
    security: Sequence[str],
    version: tuple[int, int] = API_VERSION,
) -> JsonObject:
    """``GET /info``.

    Args:
        facts: Of the host.
        config: The daemon's.
        counts: The caller's containers: ``running``, ``paused``, ``stopped``.
        images: The caller's images.
        security: Docker's ``SecurityOptions``.
        version: The API version asked for.
    """
    whole: JsonObject = {
        "ID": facts.daemon_id,
        "Containers": sum(counts.values()),
        "ContainersRunning": counts.get("running", 0),
        "ContainersPaused": counts.get("paused", 0),
        "ContainersStopped": counts.get("stopped", 0),
        "Images": images,
        "Driver": "overlay2",
        "DriverStatus": [["Native Overlay Diff", "true"]],
        **_abilities(facts),
        "KernelVersion": facts.kernel,
        "OperatingSystem": facts.operating_system,
        "OSVersion": facts.os_version,
        "OSType": "linux",
        "Architecture": facts.architecture,
        "NCPU": facts.cpus,
        "MemTotal": facts.memory_bytes,
        "GenericResources": None,
        "DockerRootDir": str(config.data_root),
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": facts.hostname,
        "Labels": [],
        "ExperimentalBuild": False,
        "ServerVersion": facts.version,
        "Runtimes": {facts.runtime: {"path": facts.runtime_path}},
        "DefaultRuntime": facts.runtime,
        "LiveRestoreEnabled": True,
        "Isolation": "",
        "InitBinary": "",
        "ContainerdCommit": {"ID": "", "Expected": ""},
        "RuncCommit": {"ID": "", "Expected": ""},
        "InitCommit": {"ID": "", "Expected": ""},
        "SecurityOptions": list(security),
        "SystemTime": rfc3339(now_ns()),
        "DefaultAddressPools": [
            {"Base": config.network.pool, "Size": config.network.subnet_prefix_length}
        ],
        "Warnings": [f"WARNING: this host lacks {lack}" for lack in facts.lacks] or None,
    }
    if version < NAMED_SECURITY_SINCE:
        names = [option.partition(",")[0].removeprefix("name=") for option in security]
        whole |= {"ExecutionDriver": "<not supported>", "SecurityOptions": names}
    return whole


def _abilities(facts: HostFacts) -> JsonObject:
    """What this daemon and this host can do."""
    return {
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "null"],
            "Authorization": None,
            "Log": list(DRIVERS),
        },
        "MemoryLimit": True,
        "SwapLimit": not any(lack.startswith("swap") for lack in facts.lacks),
        "KernelMemory": False,
        "CpuCfsPeriod": True,
        "CpuCfsQuota": True,
        "CPUShares": True,
        "CPUSet": True,
        "PidsLimit": True,
        "OomKillDisable": facts.cgroups != "v2",
        "IPv4Forwarding": True,
        "BridgeNfIptables": False,
        "BridgeNfIp6tables": False,
        "Debug": False,
        "NFd": 0,
        "NGoroutines": 0,
        "NEventsListener": 0,
        "LoggingDriver": "json-file",
        "CgroupDriver": "none" if facts.cgroups == "none" else "cgroupfs",
        "CgroupVersion": "2" if facts.cgroups == "v2" else "1",
        "IndexServerAddress": REGISTRY,
        "RegistryConfig": {"IndexConfigs": {}, "InsecureRegistryCIDRs": [], "Mirrors": []},
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
    }
