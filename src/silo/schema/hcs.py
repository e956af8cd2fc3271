"""Documents of the Host Compute Service: schema 1, with the keys as they are on Windows.

Source: reference "Windows container creation", sections 4.4, 4.5 and 4.8.  Not Windows' own, or used for more here:
``OCISpecification`` carries the OCI runtime configuration of the Linux container; ``AssignedDevices``, ``AllDevices``,
``AllCapabilities`` and ``DeviceRates`` say what only the host can add to it: device numbers, and what it may give.
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


class AssignedDevice(msgspec.Struct, frozen=True):
    """A device of the host, or a directory of devices; ``Access`` is of ``r``, ``w`` and ``m`` (mknod)."""

    HostPath: str
    ContainerPath: str
    Access: str = "rwm"


class DeviceRate(msgspec.Struct, frozen=True):
    """A limit on one block device; ``Kind`` is its OCI name (``throttleReadBpsDevice``, ``weightDevice`` ...)."""

    HostPath: str
    Kind: str
    Rate: int


class Journal(msgspec.Struct, frozen=True):
    """How a container's lines are marked in the host's journal; not Windows' own."""

    Name: str
    Tag: str


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
    AssignedDevices: tuple[AssignedDevice, ...] = ()
    AllDevices: bool = False
    AllCapabilities: bool = False
    DeviceRates: tuple[DeviceRate, ...] = ()
    Process: ProcessConfig
    BundlePath: str
    LogPath: str = ""
    Journal: Journal | None = None
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


class ProcessStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a process ended (section 4.5); ``FinishedAt`` is nanoseconds since the epoch."""

    ProcessId: int
    Exited: bool = True
    ExitCode: int = 0
    LastWaitResult: int = 0
    FinishedAt: int = 0
    OOMKilled: bool = False


class SystemExitStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a system ended: ``ExitType`` is GracefulExit, ForcedExit or UnexpectedExit."""

    Status: int = 0
    ExitType: str = "GracefulExit"


class Notification(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What the service tells its subscribers (section 4.8).

    ``RuntimeId`` tells one run of a system from the next: a container that starts again is a new system of the same
    id.  ``EventData`` is a :class:`ProcessStatus` or a :class:`SystemExitStatus` where the type has one.
    """

    Type: int
    SystemId: str
    RuntimeId: str = ""
    ProcessId: int = 0
    Status: int = 0
    EventData: dict[str, Any] = {}
