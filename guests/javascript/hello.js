// The guest `javascript/hello`: the least that a handler can do.

import { respond } from "./reply.js";

export const incomingHandler = {
  handle(_request, responseOut) {
    respond(responseOut, 200, "text/plain", "Hello, World!");
  },
};
