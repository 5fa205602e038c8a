"""One unary call to grpc_server.py. usage: grpc_unary.py ADDRESS:PORT MESSAGE. Prints the answer."""

import sys

import grpc

options = [("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0)]
with grpc.insecure_channel(sys.argv[1], options=options) as channel:
    call = channel.unary_unary("/e2e.Peer/Unary")
    print(call(sys.argv[2].encode(), timeout=10).decode(), flush=True)
