"""A function that gives back what it got: what gRPC, Python and this machine take by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from crossplane.function import cli as sdk
from crossplane.function.proto.v1 import run_function_pb2 as fnv1
from crossplane.function.proto.v1 import run_function_pb2_grpc as grpcv1

if TYPE_CHECKING:
    import grpc


class Echo(grpcv1.FunctionRunnerServiceServicer):
    """Desires what is observed."""

    async def RunFunction(  # noqa: N802 - gRPC gives the name
        self,
        req: fnv1.RunFunctionRequest,
        _: grpc.aio.ServicerContext[fnv1.RunFunctionRequest, fnv1.RunFunctionResponse],
    ) -> fnv1.RunFunctionResponse:
        """Answer one request."""
        return fnv1.RunFunctionResponse(meta=fnv1.ResponseMeta(tag=req.meta.tag), desired=req.observed)


@click.command()
@sdk.standard_options
def main(**options: Any) -> None:
    """Serve it."""
    sdk.run(Echo(), **options)


if __name__ == "__main__":
    main()
