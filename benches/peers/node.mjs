// The peer that is Node's own HTTP server. One argument: the port on 127.0.0.1.

import { createServer } from "node:http";
import { answer } from "./answers.mjs";

const port = Number(process.argv[2]);

createServer((request, response) => {
    const [status, body] = answer(request.url);
    // Connections stay open without saying so, and the other peers do not say so.
    response.removeHeader("connection");
    response.writeHead(status, { "content-type": "text/plain", "content-length": body.length });
    response.end(body);
}).listen({ port, host: "127.0.0.1", backlog: 4096 });
