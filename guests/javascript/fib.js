// The handler `javascript/fib`: naive recursion, for work that is nothing but calls.
//
// It answers as the workload `fib` of the guests in Rust: `/fib/32` with `2178309` and a newline,
// and what is not one plain decimal number up to 40 with a 400 that says so.

import { respond } from "./reply.js";

const MAX = 40;
const EXPECTED = "expected one decimal number from 0 to 40 after the route, as in /fib/32\n";
// A zero in front would make two addresses for one resource.
const PLAIN = /^(0|[1-9][0-9]?)$/;

const decoder = new TextDecoder();

export const incomingHandler = {
  handle(request, responseOut) {
    const number = numberOf(baseOf(request), request.pathWithQuery() ?? "/");
    // What is not given back by hand stays until the garbage is collected.
    request[Symbol.dispose]();
    if (number === undefined) {
      respond(responseOut, 400, "text/plain", EXPECTED);
    } else {
      respond(responseOut, 200, "text/plain", `${fibonacci(number)}\n`);
    }
  },
};

/** The path of the route; a host that is not Guesthouse does not say it. */
function baseOf(request) {
  const headers = request.headers();
  const [base] = headers.get("guesthouse-base-path");
  headers[Symbol.dispose]();
  return base === undefined ? "/fib" : decoder.decode(base);
}

/** The number behind the route's path. The query does not matter. */
function numberOf(base, uri) {
  const [path] = uri.split("?", 1);
  const lead = `${base.replace(/\/+$/, "")}/`;
  const digits = path.slice(lead.length);
  if (!path.startsWith(lead) || !PLAIN.test(digits) || Number(digits) > MAX) {
    return undefined;
  }
  return Number(digits);
}

function fibonacci(n) {
  return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}
