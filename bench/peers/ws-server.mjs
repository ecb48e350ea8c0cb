// A plain fan-out server, as the README of `ws` writes one: every body posted to /publish goes to every
// open WebSocket as it is. Prints its address once it listens.
import { createServer } from "node:http";
import { WebSocket, WebSocketServer } from "ws";

const server = createServer((request, response) => {
  if (request.method !== "POST" || request.url !== "/publish") {
    response.writeHead(404).end();
    return;
  }
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const body = Buffer.concat(parts);
    for (const client of sockets.clients) {
      if (client.readyState === WebSocket.OPEN) client.send(body, { binary: false });
    }
    response.writeHead(204).end();
  });
});
const sockets = new WebSocketServer({ server, path: "/ws", perMessageDeflate: false });
// A subscriber that resets its connection is no reason to stop.
sockets.on("connection", (socket) => socket.on("error", () => {}));
server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () => {
  console.log(`http://127.0.0.1:${server.address().port}`);
});
