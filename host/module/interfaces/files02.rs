//! Files and sockets of WASI 0.2. The host gives guests neither files nor sockets, so the flat form
//! does not have these functions.

use super::row::{Interface, whole, whole_realloc};

pub const ALL: &[Interface] = &[
    FILESYSTEM_TYPES,
    FILESYSTEM_PREOPENS,
    SOCKETS_NETWORK,
    SOCKETS_INSTANCE_NETWORK,
    SOCKETS_IP_NAME_LOOKUP,
    SOCKETS_TCP,
    SOCKETS_TCP_CREATE_SOCKET,
    SOCKETS_UDP,
    SOCKETS_UDP_CREATE_SOCKET,
];

pub const FILESYSTEM_TYPES: Interface = Interface::of_02(
    "wasi:filesystem/types",
    &[
        whole("[resource-drop]descriptor"),
        whole("[method]descriptor.read-via-stream"),
        whole("[method]descriptor.write-via-stream"),
        whole("[method]descriptor.append-via-stream"),
        whole("[method]descriptor.advise"),
        whole("[method]descriptor.sync-data"),
        whole("[method]descriptor.get-flags"),
        whole("[method]descriptor.get-type"),
        whole("[method]descriptor.set-size"),
        whole("[method]descriptor.set-times"),
        whole_realloc("[method]descriptor.read"),
        whole("[method]descriptor.write"),
        whole("[method]descriptor.read-directory"),
        whole("[method]descriptor.sync"),
        whole("[method]descriptor.create-directory-at"),
        whole("[method]descriptor.stat"),
        whole("[method]descriptor.stat-at"),
        whole("[method]descriptor.set-times-at"),
        whole("[method]descriptor.link-at"),
        whole("[method]descriptor.open-at"),
        whole_realloc("[method]descriptor.readlink-at"),
        whole("[method]descriptor.remove-directory-at"),
        whole("[method]descriptor.rename-at"),
        whole("[method]descriptor.symlink-at"),
        whole("[method]descriptor.unlink-file-at"),
        whole("[method]descriptor.is-same-object"),
        whole("[method]descriptor.metadata-hash"),
        whole("[method]descriptor.metadata-hash-at"),
        whole("[resource-drop]directory-entry-stream"),
        whole_realloc("[method]directory-entry-stream.read-directory-entry"),
        whole("filesystem-error-code"),
    ],
);

pub const FILESYSTEM_PREOPENS: Interface =
    Interface::of_02("wasi:filesystem/preopens", &[whole_realloc("get-directories")]);

pub const SOCKETS_NETWORK: Interface =
    Interface::of_02("wasi:sockets/network", &[whole("[resource-drop]network")]);

pub const SOCKETS_INSTANCE_NETWORK: Interface =
    Interface::of_02("wasi:sockets/instance-network", &[whole("instance-network")]);

pub const SOCKETS_IP_NAME_LOOKUP: Interface = Interface::of_02(
    "wasi:sockets/ip-name-lookup",
    &[
        whole("[resource-drop]resolve-address-stream"),
        whole("[method]resolve-address-stream.resolve-next-address"),
        whole("[method]resolve-address-stream.subscribe"),
        whole("resolve-addresses"),
    ],
);

pub const SOCKETS_TCP: Interface = Interface::of_02(
    "wasi:sockets/tcp",
    &[
        whole("[resource-drop]tcp-socket"),
        whole("[method]tcp-socket.start-bind"),
        whole("[method]tcp-socket.finish-bind"),
        whole("[method]tcp-socket.start-connect"),
        whole("[method]tcp-socket.finish-connect"),
        whole("[method]tcp-socket.start-listen"),
        whole("[method]tcp-socket.finish-listen"),
        whole("[method]tcp-socket.accept"),
        whole("[method]tcp-socket.local-address"),
        whole("[method]tcp-socket.remote-address"),
        whole("[method]tcp-socket.is-listening"),
        whole("[method]tcp-socket.address-family"),
        whole("[method]tcp-socket.set-listen-backlog-size"),
        whole("[method]tcp-socket.keep-alive-enabled"),
        whole("[method]tcp-socket.set-keep-alive-enabled"),
        whole("[method]tcp-socket.keep-alive-idle-time"),
        whole("[method]tcp-socket.set-keep-alive-idle-time"),
        whole("[method]tcp-socket.keep-alive-interval"),
        whole("[method]tcp-socket.set-keep-alive-interval"),
        whole("[method]tcp-socket.keep-alive-count"),
        whole("[method]tcp-socket.set-keep-alive-count"),
        whole("[method]tcp-socket.hop-limit"),
        whole("[method]tcp-socket.set-hop-limit"),
        whole("[method]tcp-socket.receive-buffer-size"),
        whole("[method]tcp-socket.set-receive-buffer-size"),
        whole("[method]tcp-socket.send-buffer-size"),
        whole("[method]tcp-socket.set-send-buffer-size"),
        whole("[method]tcp-socket.subscribe"),
        whole("[method]tcp-socket.shutdown"),
    ],
);

pub const SOCKETS_TCP_CREATE_SOCKET: Interface =
    Interface::of_02("wasi:sockets/tcp-create-socket", &[whole("create-tcp-socket")]);

pub const SOCKETS_UDP: Interface = Interface::of_02(
    "wasi:sockets/udp",
    &[
        whole("[resource-drop]udp-socket"),
        whole("[method]udp-socket.start-bind"),
        whole("[method]udp-socket.finish-bind"),
        whole("[method]udp-socket.stream"),
        whole("[method]udp-socket.local-address"),
        whole("[method]udp-socket.remote-address"),
        whole("[method]udp-socket.address-family"),
        whole("[method]udp-socket.unicast-hop-limit"),
        whole("[method]udp-socket.set-unicast-hop-limit"),
        whole("[method]udp-socket.receive-buffer-size"),
        whole("[method]udp-socket.set-receive-buffer-size"),
        whole("[method]udp-socket.send-buffer-size"),
        whole("[method]udp-socket.set-send-buffer-size"),
        whole("[method]udp-socket.subscribe"),
        whole("[resource-drop]incoming-datagram-stream"),
        whole_realloc("[method]incoming-datagram-stream.receive"),
        whole("[method]incoming-datagram-stream.subscribe"),
        whole("[resource-drop]outgoing-datagram-stream"),
        whole("[method]outgoing-datagram-stream.check-send"),
        whole("[method]outgoing-datagram-stream.send"),
        whole("[method]outgoing-datagram-stream.subscribe"),
    ],
);

pub const SOCKETS_UDP_CREATE_SOCKET: Interface =
    Interface::of_02("wasi:sockets/udp-create-socket", &[whole("create-udp-socket")]);
