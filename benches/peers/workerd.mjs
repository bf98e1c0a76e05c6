// The peer that is workerd: the same JavaScript as node.mjs answers with, as a worker.

import { answer } from "answers.mjs";

export default {
    fetch(request) {
        const [status, body] = answer(new URL(request.url).pathname);
        return new Response(body, { status, headers: { "content-type": "text/plain" } });
    },
};
