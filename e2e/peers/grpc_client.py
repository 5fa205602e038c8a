"""Calls grpc_server.py in each of the four ways, without retries, and checks messages, statuses and trailers.

usage: grpc_client.py ADDRESS:PORT MARKER [CALLER [lossy]]
Prints "passed" and the number of calls; exits 1 with what was wrong. `lossy` for a linkerd2-proxy before the server: of a
call that the server refuses before it has read it, two times in three it hands on an end without a status.
"""

import sys

import grpc

target, marker = sys.argv[1], sys.argv[2].encode()
expected_caller = sys.argv[3] if len(sys.argv) > 3 else None
lossy = sys.argv[4:] == ["lossy"]
LIMIT = 10
calls = 0


def check(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: got {got!r}, not {wanted!r}")


def trailers(what, call, count):
    global calls
    calls += 1
    fields = dict(call.trailing_metadata())
    check(what + " x-count", fields.get("x-count"), str(count))
    if expected_caller is not None:
        check(what + " x-caller", fields.get("x-caller"), expected_caller)


def main():
    options = [("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(target, options=options) as channel:
        grpc.channel_ready_future(channel).result(timeout=LIMIT)
        path = "/e2e.Peer/"
        big = marker * (300_000 // len(marker))
        for message in (marker, b"", big):
            answer, call = channel.unary_unary(path + "Unary").with_call(message, timeout=LIMIT)
            check("unary", answer, message)
            trailers("unary", call, 1)
        try:
            channel.unary_unary(path + "Unary")(b"fail", timeout=LIMIT)
            sys.exit("unary: a failure did not arrive")
        except grpc.RpcError as error:
            check("status", error.code(), grpc.StatusCode.FAILED_PRECONDITION)
            check("message", error.details(), "as asked: 100% of the time")
            trailers("failing unary", error, 0)
        try:
            channel.unary_unary(path + "Missing")(marker, timeout=LIMIT)
            sys.exit("a method that is not there answered")
        except grpc.RpcError as error:
            if not (lossy and error.code() == grpc.StatusCode.UNKNOWN):
                check("status", error.code(), grpc.StatusCode.UNIMPLEMENTED)
        call = channel.unary_stream(path + "ServerStream")(b"100", timeout=LIMIT)
        check("server stream", list(call), [b"%d" % number for number in range(100)])
        trailers("server stream", call, 100)
        messages = [marker * size for size in range(50)]
        answer, call = channel.stream_unary(path + "ClientStream").with_call(iter(messages), timeout=LIMIT)
        check("client stream", answer, b"%d" % sum(map(len, messages)))
        trailers("client stream", call, 50)
        call = channel.stream_stream(path + "BothStreams")(iter(messages), timeout=LIMIT)
        check("both streams", list(call), messages)
        trailers("both streams", call, 50)
    print("passed", calls, flush=True)


main()
