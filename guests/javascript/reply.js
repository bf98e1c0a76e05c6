// What the handlers share: a whole answer at once.

import { Fields, OutgoingBody, OutgoingResponse, ResponseOutparam } from "wasi:http/types@0.2.10";

// Bytes that one write to a body may have, by the contract of WASI.
export const WRITE_BYTES_MAX = 4096;

const encoder = new TextEncoder();

/** Answers with a status, a type and a body. */
export function respond(responseOut, status, contentType, text) {
  const fields = Fields.fromList([["content-type", encoder.encode(contentType)]]);
  const response = new OutgoingResponse(fields);
  if (status !== 200) {
    response.setStatusCode(status);
  }
  const body = response.body();
  ResponseOutparam.set(responseOut, { tag: "ok", val: response });
  const content = typeof text === "string" ? encoder.encode(text) : text;
  const stream = body.write();
  for (let start = 0; start < content.length; start += WRITE_BYTES_MAX) {
    stream.blockingWriteAndFlush(content.subarray(start, start + WRITE_BYTES_MAX));
  }
  // It has to be closed before the body is finished.
  stream[Symbol.dispose]();
  OutgoingBody.finish(body, undefined);
}
