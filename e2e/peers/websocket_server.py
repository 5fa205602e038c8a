"""A WebSocket echo on the PyPI package websockets. usage: websocket_server.py PORT"""

import asyncio
import sys

from websockets.asyncio.server import serve


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def main():
    async with serve(echo, "0.0.0.0", int(sys.argv[1]), max_size=1 << 22) as server:
        await server.serve_forever()


asyncio.run(main())
