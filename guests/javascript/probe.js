// A handler that does as the last part of its path says, for the host's tests.

import { Fields, OutgoingBody, OutgoingResponse, ResponseOutparam } from "wasi:http/types@0.2.10";
import { WRITE_BYTES_MAX, respond } from "./reply.js";

const TEXT = "text/plain";

// How many requests this instance has seen.
let count = 0;

export const incomingHandler = {
  handle(request, responseOut) {
    count += 1;
    const [path] = (request.pathWithQuery() ?? "/").split("?", 1);
    BEHAVIOURS[path.split("/").pop()](request, responseOut);
    request[Symbol.dispose]();
  },
};

const BEHAVIOURS = {
  /** Takes what memory there is. */
  allocate() {
    const taken = [];
    for (;;) {
      taken.push(new Uint8Array(8 << 20));
    }
  },

  count(_request, responseOut) {
    respond(responseOut, 200, TEXT, String(count));
  },

  /** Gives the body back as it comes. */
  echo(request, responseOut) {
    const body = answer(responseOut);
    const stream = body.write();
    for (const piece of pieces(request.consume())) {
      stream.blockingWriteAndFlush(piece);
    }
    stream[Symbol.dispose]();
    OutgoingBody.finish(body, undefined);
  },

  fail() {
    throw new Error("it was asked to fail");
  },

  /** Fails when a part of its answer is on the way. */
  "fail-late"(_request, responseOut) {
    answer(responseOut).write().blockingWriteAndFlush(new TextEncoder().encode("the beginning"));
    throw new Error("it was asked to fail");
  },

  length(request, responseOut) {
    let total = 0;
    for (const piece of pieces(request.consume())) {
      total += piece.length;
    }
    respond(responseOut, 200, TEXT, String(total));
  },

  long(_request, responseOut) {
    respond(responseOut, 200, TEXT, "0123456789".repeat(10_000));
  },

  say(_request, responseOut) {
    console.log("said on stdout");
    console.error("said on stderr");
    respond(responseOut, 200, TEXT, "said");
  },

  secret(_request, responseOut) {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    respond(responseOut, 200, TEXT, Array.from(bytes, (byte) => byte.toString(16)).join("."));
  },
};

/** Sends the head, and gives the body. */
function answer(responseOut) {
  const response = new OutgoingResponse(new Fields());
  const body = response.body();
  ResponseOutparam.set(responseOut, { tag: "ok", val: response });
  return body;
}

function* pieces(body) {
  const stream = body.stream();
  for (;;) {
    let piece;
    try {
      piece = stream.blockingRead(BigInt(WRITE_BYTES_MAX));
    } catch (error) {
      if (error.payload?.tag === "closed") {
        stream[Symbol.dispose]();
        body[Symbol.dispose]();
        return;
      }
      throw error;
    }
    yield piece;
  }
}
