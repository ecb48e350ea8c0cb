"""Prints what happens on a Quarterdeck server, and says when something was missed.

    pip install websockets
    QUARTERDECK_TOKEN=... python follow.py tasks agents system

QUARTERDECK_TOKEN is the value of the cookie `session` after signing in; QUARTERDECK_URL is the server, by default
http://127.0.0.1:3001.
"""

import asyncio, json, os, random, sys
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

SERVER = os.environ.get("QUARTERDECK_URL", "http://127.0.0.1:3001").rstrip("/")
LAST_TRY = 20
positions = {}  # Of each channel the place up to which we know its history: {"epoch": ..., "seq": ...}.


def ticket():
    """Opens one connection, within half a minute."""
    token = {"Authorization": f"Bearer {os.environ['QUARTERDECK_TOKEN']}"}
    with urlopen(Request(f"{SERVER}/api/v1/auth/ws-ticket", method="POST", headers=token), timeout=10) as answer:
        return json.load(answer)["data"]["ticket"]


def missed(channel, why):
    print(f"! {channel}: events were missed ({why}); load what you keep of it again", flush=True)


def handle(frame):
    action, channel = frame.get("action"), frame.get("channel")
    if action == "batch":
        for event in frame["events"]:
            handle(event)
    elif action == "subscribed":
        print("following", *frame["channels"], flush=True)
        for channel, position in frame["positions"].items():
            recovery = frame.get("recovery", {}).get(channel, {})
            if recovery.get("recovered") is False:
                missed(channel, recovery["reason"])
            if not recovery.get("recovered"):  # Else the replays that follow move the position.
                positions[channel] = position
    elif action == "gap":
        missed(channel, "too slow")
        positions[channel] = {"epoch": frame["epoch"], "seq": frame["to"]}
    elif "error" in frame:
        print(f"! refused: {frame['error']}", flush=True)
    elif "event_type" in frame and frame.get("version", 1) == 1:
        known, position = positions.get(channel, {}), frame["position"]
        if known.get("epoch") == position["epoch"] and position["seq"] <= known["seq"]:
            return  # Seen before.
        positions[channel] = position
        print(frame["timestamp"], channel, frame["event_type"], json.dumps(frame["payload"]), flush=True)


async def follow(channels):
    attempt = refused = 0
    while attempt < LAST_TRY:
        try:
            # The ticket travels as a second subprotocol, so that it is in no URL and no access log.
            offer = ["quarterdeck.v1", f"quarterdeck.ticket.{await asyncio.to_thread(ticket)}"]
            async with connect(f"{SERVER.replace('http', 'ws', 1)}/api/v1/ws", subprotocols=offer) as socket:
                json.loads(await socket.recv())  # auth_ok; a refusal raises instead.
                attempt = refused = 0
                known = {channel: positions[channel] for channel in channels if channel in positions}
                command = {"action": "subscribe", "channels": channels, "recover": known, "batch": True}
                await socket.send(json.dumps(command))
                while True:
                    handle(json.loads(await socket.recv()))
        except HTTPError as failure:
            if failure.code == 401:
                sys.exit("The token is not valid, or its session is over.")
        except ConnectionClosed as closed:
            code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "connection lost")
            refused += code == 4001
            if code in (1000, 1001, 1009, 4003) or refused > 1:
                sys.exit(f"The server closed the connection: {code} {reason}")
        except (OSError, InvalidHandshake):
            pass  # Not there at the moment.
        delay = min(2**attempt, 30) * random.uniform(0.8, 1.2)
        attempt += 1
        print(f"! disconnected; trying again in {delay:.1f} s", flush=True)
        await asyncio.sleep(delay)
    sys.exit("The server does not come back.")


if __name__ == "__main__":
    try:
        asyncio.run(follow(sys.argv[1:] or sys.exit(__doc__)))
    except KeyboardInterrupt:
        pass
