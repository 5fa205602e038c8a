"""gRPC on grpcio without generated code: a server that says when calls begin and end, and a client that gives up."""

import sys
import threading
import time
from concurrent import futures

import grpc


def say(*words):
    print(*words, flush=True)


def noted(context):
    left = context.time_remaining()
    # Without a deadline grpcio gives a time beyond anybody's life, or none.
    say("begun", "forever" if left is None or left > 1e6 else "%.3f" % left)
    ended = threading.Event()
    context.add_callback(lambda: (say("ended"), ended.set()))
    return ended


def wait(request, context):
    noted(context).wait(15)
    return b""


def stream(request, context):
    ended = noted(context)
    yield b"first"
    ended.wait(15)


def serve(address):
    handlers = grpc.method_handlers_generic_handler(
        "corners.Peer",
        {
            "Wait": grpc.unary_unary_rpc_method_handler(wait),
            "Stream": grpc.unary_stream_rpc_method_handler(stream),
        },
    )
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), handlers=(handlers,))
    if server.add_insecure_port(address) == 0:
        sys.exit("cannot listen on " + address)
    server.start()
    say("listening")
    threading.Event().wait()


def deadline(channel):
    started = time.monotonic()
    try:
        channel.unary_unary("/corners.Peer/Wait")(b"x", timeout=0.7)
    except grpc.RpcError as error:
        say(error.code().name, "%.3f" % (time.monotonic() - started))


def cancel(channel):
    call = channel.unary_stream("/corners.Peer/Stream")(b"x")
    say(next(call).decode())
    call.cancel()
    try:
        next(call)
    except grpc.RpcError as error:
        say(error.code().name)


def vanish(channel):
    call = channel.unary_stream("/corners.Peer/Stream")(b"x")
    say(next(call).decode())
    # No goodbye: the process ends.
    sys.stdout.flush()
    import os

    os._exit(0)


def main():
    role, address = sys.argv[1:]
    if role == "serve":
        serve(address)
        return
    with grpc.insecure_channel(address) as channel:
        {"deadline": deadline, "cancel": cancel, "vanish": vanish}[role](channel)


main()
