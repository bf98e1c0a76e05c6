// What the JavaScript peers answer: the demo handlers of guests/src/workload.rs, written as
// JavaScript would. Owns no server; node.mjs and workerd.mjs do.

const FIB_MAX = 40;
const FIB_EXPECTED =
    "expected one decimal number from 0 to 40 after the route, as in /fib/32\n";

// The status and the body, which is plain text.
export function answer(path) {
    if (path === "/hello") return [200, "Hello, World!"];
    if (!path.startsWith("/fib/")) return [404, "not found\n"];
    const n = fibNumber(path.slice("/fib/".length));
    return n === null ? [400, FIB_EXPECTED] : [200, `${fibonacci(n)}\n`];
}

function fibNumber(digits) {
    const n = /^(0|[1-9][0-9]?)$/.test(digits) ? Number(digits) : Infinity;
    return n <= FIB_MAX ? n : null;
}

// By naive recursion, which is the point: it costs calls and nothing else.
function fibonacci(n) {
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}
