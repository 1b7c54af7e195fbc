"""The gRPC service: decode → plan → emit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crossplane.function import logging
from crossplane.function.proto.v1 import run_function_pb2_grpc as grpcv1

from function import plan
from function.decode import decode
from function.emit import emit

if TYPE_CHECKING:
    import grpc
    from crossplane.function.proto.v1 import run_function_pb2 as fnv1


class FunctionRunner(grpcv1.FunctionRunnerServiceServicer):
    """Answers Crossplane; keeps nothing between calls."""

    async def RunFunction(  # noqa: N802 - gRPC gives the name
        self,
        req: fnv1.RunFunctionRequest,
        _: grpc.aio.ServicerContext[fnv1.RunFunctionRequest, fnv1.RunFunctionResponse],
    ) -> fnv1.RunFunctionResponse:
        """Answer one request."""
        rsp = emit(req, plan.compose(decode(req)))
        for result in rsp.results:
            logging.get_logger().info("told", tag=req.meta.tag, reason=result.reason, message=result.message)
        return rsp
