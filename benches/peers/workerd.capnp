# One worker behind one socket, whose address the command line gives (--socket-addr http=...).
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [(name = "peer", worker = .peer)],
  sockets = [(name = "http", http = (), service = "peer")],
);

const peer :Workerd.Worker = (
  modules = [
    (name = "workerd.mjs", esModule = embed "workerd.mjs"),
    (name = "answers.mjs", esModule = embed "answers.mjs"),
  ],
  compatibilityDate = "2026-11-01",
);
