"""A gRPC server on grpcio without generated code: messages are bytes, the four call kinds, and trailers."""

import sys
import threading
from concurrent import futures

import grpc


def caller(context):
    """The identity the mesh vouches for, as the application sees it."""
    return dict(context.invocation_metadata()).get("l5d-client-id", "")


def finish(context, count):
    context.set_trailing_metadata((("x-count", str(count)), ("x-caller", caller(context))))


def unary(request, context):
    if request == b"fail":
        finish(context, 0)
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked: 100% of the time")
    finish(context, 1)
    return request


def server_stream(request, context):
    count = int(request)
    for number in range(count):
        yield b"%d" % number
    finish(context, count)


def client_stream(requests, context):
    count = total = 0
    for request in requests:
        count, total = count + 1, total + len(request)
    finish(context, count)
    return b"%d" % total


def both_streams(requests, context):
    count = 0
    for request in requests:
        count += 1
        yield request
    finish(context, count)


def main():
    handlers = grpc.method_handlers_generic_handler(
        "e2e.Peer",
        {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
            "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
            "BothStreams": grpc.stream_stream_rpc_method_handler(both_streams),
        },
    )
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), handlers=(handlers,))
    if server.add_insecure_port("0.0.0.0:" + sys.argv[1]) == 0:
        sys.exit("cannot listen on port " + sys.argv[1])
    server.start()
    threading.Event().wait()


main()
