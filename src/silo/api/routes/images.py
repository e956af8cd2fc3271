"""``/images``: decode, call the image service, encode."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from silo.api.router import Router
from silo.api.routes.common import filters_of
from silo.daemon.daemon import Daemon
from silo.errors import InvalidParameter, SiloError, Unimplemented
from silo.httpd.messages import Request, Response, StreamResponse, empty, json_response
from silo.ids import ImageID

JSON_STREAM = {"Content-Type": "application/json"}


def routes(daemon: Daemon, router: Router) -> None:
    """Put the images' routes into ``router``."""
    resource = Images(daemon)
    router.add("GET", "/images/json", resource.list, traced=False)
    router.add("POST", "/images/load", resource.load)
    router.add("POST", "/images/create", resource.create)
    router.add("GET", "/images/{name:.*}/json", resource.inspect, traced=False)
    router.add("GET", "/images/{name:.*}/history", resource.history, traced=False)
    router.add("POST", "/images/{name:.*}/tag", resource.tag)
    router.add("DELETE", "/images/{name:.*}", resource.remove)


class Images:
    """One method a route."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    async def list(self, request: Request) -> Response:
        """``docker images``."""
        shown = await self.daemon.images.list(
            filters_of(request),
            all=request.query.flag("all"),
            shared_size=request.query.flag("shared-size"),
            version=request.version,
        )
        counts: dict[str, int] = {}
        for container in self.daemon.registry.all():
            counts[container.image] = counts.get(container.image, 0) + 1
        for row in shown:
            row["Containers"] = counts.get(row["Id"], 0)
        return json_response(shown)

    async def load(self, request: Request) -> StreamResponse:
        """``docker load``."""
        return progress(self.daemon.images.load(request.stream(), quiet=request.query.flag("quiet", default=True)))

    async def create(self, request: Request) -> StreamResponse:
        """``docker import``; pulling needs the registry client, which this engine does not have yet."""
        query = request.query
        source = query.get("fromSrc") or ""
        if not source:
            raise Unimplemented(
                f"pull {query.get('fromImage') or ''}: this engine has no registry client yet: use load"
            )
        if source != "-":
            raise Unimplemented(f"import from {source}: only a tar in the request body (-) can be imported")
        steps = self.daemon.images.import_tar(
            request.stream(),
            repo=query.get("repo") or "",
            tag=query.get("tag") or "",
            message=query.get("message") or "",
            changes=query.all("changes"),
            platform=query.get("platform") or None,
        )
        first = await anext(steps)  # an import says nothing before it is done: what fails has a status of its own

        async def whole() -> AsyncIterator[dict[str, Any]]:
            yield first
            async for step in steps:
                yield step

        return progress(whole())

    async def inspect(self, request: Request) -> Response:
        """``docker image inspect``."""
        return json_response(await self.daemon.images.inspect(request.params["name"], request.version))

    async def history(self, request: Request) -> Response:
        """``docker history``."""
        return json_response(await self.daemon.images.history(request.params["name"]))

    async def tag(self, request: Request) -> Response:
        """``docker tag``."""
        repo = request.query.get("repo") or ""
        if not repo:
            raise InvalidParameter("invalid reference format")
        await self.daemon.images.tag(request.params["name"], repo, request.query.get("tag") or "")
        return empty(201)

    async def remove(self, request: Request) -> Response:
        """``docker rmi``."""
        query = request.query
        removed = await self.daemon.images.remove(
            request.params["name"],
            force=query.flag("force"),
            prune=not query.flag("noprune"),
            in_use=self._users,
        )
        return json_response(removed)

    def _users(self, image: ImageID) -> Sequence[tuple[str, bool]]:
        return [(one.id, one.running) for one in self.daemon.registry.all() if one.image == image]


def progress(steps: AsyncIterator[dict[str, Any]]) -> StreamResponse:
    """Dockerd's JSON progress stream: an object a line; an error after the head went out is the last line."""

    async def body() -> AsyncIterator[bytes]:
        try:
            async for step in steps:
                yield msgspec.json.encode(step) + b"\r\n"
        except SiloError as exc:
            yield msgspec.json.encode({"errorDetail": {"message": str(exc)}, "error": str(exc)}) + b"\r\n"

    return StreamResponse(200, JSON_STREAM, body())
