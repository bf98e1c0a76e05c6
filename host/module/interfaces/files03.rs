//! Files and sockets of WASI 0.3. The host gives guests neither files nor sockets, so the flat form
//! does not have these functions.

use super::row::{Interface, whole, whole_realloc};

pub const ALL: &[Interface] =
    &[FILESYSTEM_TYPES, FILESYSTEM_PREOPENS, SOCKETS_TYPES, SOCKETS_IP_NAME_LOOKUP];

pub const FILESYSTEM_TYPES: Interface = Interface::of_03(
    "wasi:filesystem/types",
    "wasi:filesystem/types@0.3",
    &[
        whole("[resource-drop]descriptor"),
        whole("[method]descriptor.read-via-stream"),
        whole("[method]descriptor.write-via-stream"),
        whole("[method]descriptor.append-via-stream"),
        whole_realloc("[method]descriptor.advise"),
        whole_realloc("[method]descriptor.sync-data"),
        whole_realloc("[method]descriptor.get-flags"),
        whole_realloc("[method]descriptor.get-type"),
        whole_realloc("[method]descriptor.set-size"),
        whole_realloc("[method]descriptor.set-times"),
        whole("[method]descriptor.read-directory"),
        whole_realloc("[method]descriptor.sync"),
        whole_realloc("[method]descriptor.create-directory-at"),
        whole_realloc("[method]descriptor.stat"),
        whole_realloc("[method]descriptor.stat-at"),
        whole_realloc("[method]descriptor.set-times-at"),
        whole_realloc("[method]descriptor.link-at"),
        whole_realloc("[method]descriptor.open-at"),
        whole_realloc("[method]descriptor.readlink-at"),
        whole_realloc("[method]descriptor.remove-directory-at"),
        whole_realloc("[method]descriptor.rename-at"),
        whole_realloc("[method]descriptor.symlink-at"),
        whole_realloc("[method]descriptor.unlink-file-at"),
        whole("[method]descriptor.is-same-object"),
        whole_realloc("[method]descriptor.metadata-hash"),
        whole_realloc("[method]descriptor.metadata-hash-at"),
    ],
);

pub const FILESYSTEM_PREOPENS: Interface = Interface::of_03(
    "wasi:filesystem/preopens",
    "wasi:filesystem/preopens@0.3",
    &[whole_realloc("get-directories")],
);

pub const SOCKETS_TYPES: Interface = Interface::of_03(
    "wasi:sockets/types",
    "wasi:sockets/types@0.3",
    &[
        whole("[resource-drop]tcp-socket"),
        whole_realloc("[static]tcp-socket.create"),
        whole_realloc("[method]tcp-socket.bind"),
        whole_realloc("[method]tcp-socket.connect"),
        whole_realloc("[method]tcp-socket.listen"),
        whole("[method]tcp-socket.send"),
        whole("[method]tcp-socket.receive"),
        whole_realloc("[method]tcp-socket.get-local-address"),
        whole_realloc("[method]tcp-socket.get-remote-address"),
        whole("[method]tcp-socket.get-is-listening"),
        whole("[method]tcp-socket.get-address-family"),
        whole_realloc("[method]tcp-socket.set-listen-backlog-size"),
        whole_realloc("[method]tcp-socket.get-keep-alive-enabled"),
        whole_realloc("[method]tcp-socket.set-keep-alive-enabled"),
        whole_realloc("[method]tcp-socket.get-keep-alive-idle-time"),
        whole_realloc("[method]tcp-socket.set-keep-alive-idle-time"),
        whole_realloc("[method]tcp-socket.get-keep-alive-interval"),
        whole_realloc("[method]tcp-socket.set-keep-alive-interval"),
        whole_realloc("[method]tcp-socket.get-keep-alive-count"),
        whole_realloc("[method]tcp-socket.set-keep-alive-count"),
        whole_realloc("[method]tcp-socket.get-hop-limit"),
        whole_realloc("[method]tcp-socket.set-hop-limit"),
        whole_realloc("[method]tcp-socket.get-receive-buffer-size"),
        whole_realloc("[method]tcp-socket.set-receive-buffer-size"),
        whole_realloc("[method]tcp-socket.get-send-buffer-size"),
        whole_realloc("[method]tcp-socket.set-send-buffer-size"),
        whole("[resource-drop]udp-socket"),
        whole_realloc("[static]udp-socket.create"),
        whole_realloc("[method]udp-socket.bind"),
        whole_realloc("[method]udp-socket.connect"),
        whole_realloc("[method]udp-socket.disconnect"),
        whole_realloc("[method]udp-socket.send"),
        whole_realloc("[method]udp-socket.receive"),
        whole_realloc("[method]udp-socket.get-local-address"),
        whole_realloc("[method]udp-socket.get-remote-address"),
        whole("[method]udp-socket.get-address-family"),
        whole_realloc("[method]udp-socket.get-unicast-hop-limit"),
        whole_realloc("[method]udp-socket.set-unicast-hop-limit"),
        whole_realloc("[method]udp-socket.get-receive-buffer-size"),
        whole_realloc("[method]udp-socket.set-receive-buffer-size"),
        whole_realloc("[method]udp-socket.get-send-buffer-size"),
        whole_realloc("[method]udp-socket.set-send-buffer-size"),
    ],
);

pub const SOCKETS_IP_NAME_LOOKUP: Interface = Interface::of_03(
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/ip-name-lookup@0.3",
    &[whole_realloc("resolve-addresses")],
);
