// The handler `javascript/hello`: the least that a handler can do.

import { respond } from "./reply.js";

export const incomingHandler = {
  handle(request, responseOut) {
    // What is not given back by hand stays until the garbage is collected.
    request[Symbol.dispose]();
    respond(responseOut, 200, "text/plain", "Hello, World!");
  },
};
