"""Talks to websocket_server.py and checks every message. usage: websocket_client.py URL MARKER

Text, binary, fragments, a message past many buffers, ping and pong, and a close with its code.
"""

import asyncio
import os
import sys

from websockets.asyncio.client import connect

url, marker = sys.argv[1], sys.argv[2]


def check(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: got {str(got)[:100]!r}, not {str(wanted)[:100]!r}")


async def main():
    async with asyncio.timeout(20):
        async with connect(url, compression=None, proxy=None, max_size=1 << 22) as connection:
            for number in range(100):
                await connection.send(f"{marker} {number}")
                check("text", await connection.recv(), f"{marker} {number}")
            blob = os.urandom(1 << 20)
            await connection.send(blob)
            check("binary", await connection.recv(), blob)
            await connection.send([marker, " in ", "pieces"])
            check("fragments", await connection.recv(), marker + " in pieces")
            await (await connection.ping())
            await connection.close(4321, "done")
            check("close code", connection.close_code, 4321)
    print("passed", flush=True)


asyncio.run(main())
