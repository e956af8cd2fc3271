"""Documents of the Host Compute Service: schema 1, with the keys as they are on Windows.

Source: reference "Windows container creation", sections 4.4, 4.5 and 4.8.  One key is used for more than on Windows:
``OCISpecification`` carries the OCI runtime configuration of the Linux container.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

SYSTEM_EXITED: Final = 1
CREATE_COMPLETED: Final = 2
START_COMPLETED: Final = 3
PAUSE_COMPLETED: Final = 4
RESUME_COMPLETED: Final = 5
PROCESS_EXITED: Final = 0x10000


class Layer(msgspec.Struct, frozen=True):
    """A parent layer: the GUID of its name, and its directory."""

    ID: str
    Path: str


class MappedDirectory(msgspec.Struct, frozen=True):
    """A directory of the host seen in the container."""

    HostPath: str
    ContainerPath: str
    ReadOnly: bool = False


class ContainerDocument(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What ``HcsCreateComputeSystem`` is given (``ContainerConfig`` of schema 1)."""

    SystemType: str
    Name: str
    Owner: str
    VolumePath: str
    LayerFolderPath: str
    Layers: tuple[Layer, ...]
    HvPartition: bool
    HostName: str = ""
    EndpointList: tuple[str, ...] = ()
    NetworkSharedContainerName: str = ""
    HostNetwork: bool = False
    MemoryMaximumInMB: int = 0
    ProcessorCount: int = 0
    ProcessorWeight: int = 0
    ProcessorMaximum: int = 0
    MappedDirectories: tuple[MappedDirectory, ...] = ()
    AllowUnqualifiedDNSQuery: bool = False
    Process: ProcessConfig
    BundlePath: str
    LogPath: str = ""
    OCISpecification: dict[str, Any]


class ProcessConfig(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What ``HcsCreateProcess`` is given: the command, and which of its streams have pipes."""

    CommandArgs: tuple[str, ...]
    User: str = ""
    AdditionalGroups: tuple[str, ...] = ()
    WorkingDirectory: str = "/"
    Environment: dict[str, str] = {}
    EmulateConsole: bool = False
    CreateStdInPipe: bool = False
    CreateStdOutPipe: bool = True
    CreateStdErrPipe: bool = True
    StdInOnce: bool = False
    ConsoleSize: tuple[int, int] = (0, 0)


class Notification(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What the service tells its subscribers (section 4.8); ``FinishedAt`` is nanoseconds since the epoch."""

    Type: int
    SystemId: str
    ProcessId: int = 0
    Status: int = 0
    ExitCode: int = 0
    FinishedAt: int = 0
    OOMKilled: bool = False
