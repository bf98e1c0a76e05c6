// An HTTP handler: answers every request with a line of text.

import { Fields, OutgoingBody, OutgoingResponse, ResponseOutparam } from "wasi:http/types@0.2.10";

const encoder = new TextEncoder();
const TEXT = ["content-type", encoder.encode("text/plain; charset=utf-8")];
const ALLOW = ["allow", encoder.encode("GET, HEAD")];

export const incomingHandler = {
  /** Called for each request. What is at the top of this file runs once, at the build. */
  handle(request, responseOut) {
    const method = request.method().tag;
    // What is not given back by hand stays until the garbage is collected.
    request[Symbol.dispose]();
    if (method === "get" || method === "head") {
      respond(responseOut, 200, [TEXT], "Hello, World!\n");
    } else {
      respond(responseOut, 405, [ALLOW], "");
    }
  },
};

function respond(responseOut, status, headers, text) {
  const response = new OutgoingResponse(Fields.fromList(headers));
  response.setStatusCode(status);
  const body = response.body();
  ResponseOutparam.set(responseOut, { tag: "ok", val: response });
  const content = encoder.encode(text);
  const stream = body.write();
  // One write may have 4,096 bytes.
  for (let start = 0; start < content.length; start += 4096) {
    stream.blockingWriteAndFlush(content.subarray(start, start + 4096));
  }
  // It has to be closed before the body is finished.
  stream[Symbol.dispose]();
  OutgoingBody.finish(body, undefined);
}
